package packaging

import (
	"go/types"
	"reflect"
	"strconv"
	"strings"
)

// typ writes a type without the names of parameters, which are nobody's API. That is
// what types.TypeString cannot do.
func (w *writer) typ(t types.Type) string {
	switch t := t.(type) {
	case *types.Signature:
		return "func" + w.signature(t)
	case *types.Pointer:
		return "*" + w.typ(t.Elem())
	case *types.Slice:
		return "[]" + w.typ(t.Elem())
	case *types.Array:
		return "[" + strconv.FormatInt(t.Len(), 10) + "]" + w.typ(t.Elem())
	case *types.Map:
		return "map[" + w.typ(t.Key()) + "]" + w.typ(t.Elem())
	case *types.Chan:
		return [...]string{
			types.SendRecv: "chan ", types.SendOnly: "chan<- ", types.RecvOnly: "<-chan ",
		}[t.Dir()] + w.typ(t.Elem())
	case *types.Named:
		if t.Obj().Pkg() == w.pkg && !t.Obj().Exported() {
			return "unexported" // users cannot name it, so it may have another name tomorrow
		}
	}
	return types.TypeString(t, func(p *types.Package) string {
		if p == w.pkg {
			return ""
		}
		return w.path(p)
	})
}

func (w *writer) signature(s *types.Signature) string {
	text := w.typeParams(s.TypeParams()) + "(" + w.tuple(s.Params(), s.Variadic()) + ")"
	switch results := w.tuple(s.Results(), false); {
	case s.Results().Len() == 0:
		return text
	case s.Results().Len() == 1:
		return text + " " + results
	default:
		return text + " (" + results + ")"
	}
}

func (w *writer) tuple(t *types.Tuple, variadic bool) string {
	all := make([]string, t.Len())
	for i := range all {
		all[i] = w.typ(t.At(i).Type())
	}
	if last := len(all) - 1; variadic {
		all[last] = "..." + strings.TrimPrefix(all[last], "[]")
	}
	return strings.Join(all, ", ")
}

func (w *writer) typeParams(list *types.TypeParamList) string {
	if list.Len() == 0 {
		return ""
	}
	var all []string
	for p := range list.TypeParams() {
		all = append(all, p.Obj().Name()+" "+w.typ(p.Constraint()))
	}
	return "[" + strings.Join(all, ", ") + "]"
}

// jsonTag is part of the API: users write these names into their configuration.
func jsonTag(tag string) string {
	name, ok := reflect.StructTag(tag).Lookup("json")
	if !ok {
		return ""
	}
	return " json:" + strconv.Quote(name)
}
