package describe

import (
	"go/ast"
	"go/constant"
	"go/token"
	"regexp"
	"time"
)

// note keeps the values of exported constants that a reader of a configuration may meet:
// literals, and products of numbers and units of time. Others are left out.
func (p *pkg) note(spec *ast.ValueSpec) {
	for i, name := range spec.Names {
		if !name.IsExported() || i >= len(spec.Values) {
			continue
		}
		v, unit := eval(spec.Values[i])
		if v == nil {
			continue
		}
		text := v.ExactString()
		if unit {
			n, exact := constant.Int64Val(v)
			if !exact {
				continue
			}
			// 24h0m0s reads 24h, and 1m30s stays.
			text = zeros.ReplaceAllString(time.Duration(n).String(), "$1")
		} else if v.Kind() == constant.Float {
			text = v.String()
		}
		p.constants[name.Name] = text
	}
}

var zeros = regexp.MustCompile(`([hm])0m?0?s?$`)

var units = map[string]time.Duration{
	"Nanosecond": time.Nanosecond, "Microsecond": time.Microsecond, "Millisecond": time.Millisecond,
	"Second": time.Second, "Minute": time.Minute, "Hour": time.Hour,
}

// eval is the value of e, and whether it is a duration; nil if it is not understood.
func eval(e ast.Expr) (v constant.Value, unit bool) {
	switch e := e.(type) {
	case *ast.ParenExpr:
		return eval(e.X)
	case *ast.BasicLit:
		if v := constant.MakeFromLiteral(e.Value, e.Kind, 0); v.Kind() != constant.Unknown {
			return v, false
		}
	case *ast.UnaryExpr:
		if v, unit := eval(e.X); v != nil && e.Op == token.SUB && v.Kind() != constant.String {
			return constant.UnaryOp(e.Op, v, 0), unit
		}
	case *ast.SelectorExpr:
		if x, ok := e.X.(*ast.Ident); ok && x.Name == "time" {
			if d, ok := units[e.Sel.Name]; ok {
				return constant.MakeInt64(int64(d)), true
			}
		}
	case *ast.BinaryExpr:
		x, unitX := eval(e.X)
		y, unitY := eval(e.Y)
		if x != nil && y != nil && e.Op == token.MUL && x.Kind() == constant.Int && y.Kind() == constant.Int {
			return constant.BinaryOp(x, e.Op, y), unitX || unitY
		}
	}
	return nil, false
}
