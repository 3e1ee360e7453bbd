package config

import (
	"encoding/json"
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// FuzzText: any text that is meant as JSON is judged alike by schema and loader.
func FuzzText(f *testing.F) {
	for _, b := range beyond {
		f.Add(b.example)
	}
	for _, text := range []string{
		`{"type": "redis", "ttl": "1.5s", "retry": {"attempts": -1, "delay": "1s"}, "backend": {"addrs": ["a:1"], "tls": {"caFile": "x"}}}`,
		`{"hosts": ["a"], "kind": "b", "pool": {"size": 1e0}}`, `{"shards": 8, "store": "\ud800\u0000"}`,
		"{\"name\":\"\xa9\"}", `{"ttl":"","ttl":"0s"}`,
	} {
		f.Add(text)
	}
	all := subjects(f)
	f.Fuzz(func(t *testing.T, text string) {
		text = strings.TrimSpace(text)
		if !strings.HasPrefix(text, "{") {
			t.Skip("not meant as JSON")
		}
		var depth int
		for _, c := range text {
			if c == '{' || c == '[' {
				depth++
			}
		}
		if len(text) > 1<<16 || depth > 100 {
			t.Skip("the loader has limits")
		}
		for _, s := range all {
			if s.name != "whole" && !json.Valid([]byte(text)) {
				continue // it would be part of another text
			}
			s.agree(t, text)
		}
	})
}

// FuzzFields: the same of objects that have the schema's fields, with values at and beside
// the limits, and what one gets from the environment instead.
func FuzzFields(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(seed, uint8(3))
	}
	all := subjects(f)
	f.Fuzz(func(t *testing.T, seed uint64, chance uint8) {
		for _, s := range all {
			g := &drawer{rand.New(rand.NewPCG(seed, 0)), 2 + int(chance%8)}
			doc := g.object(parsed(t, s.file))
			text, err := json.Marshal(doc)
			if err != nil {
				t.Fatal(err)
			}
			s.agree(t, string(text))
			if env, ok := environments[s.name]; ok {
				env(t, doc)
			}
		}
	})
}

// TestFields is FuzzFields for a while, in every run of the tests.
func TestFields(t *testing.T) {
	all, accepted := subjects(t), map[string]int{}
	for seed := range uint64(2000) {
		for _, s := range all {
			g := &drawer{rand.New(rand.NewPCG(seed, 1)), 2 + int(seed%8)}
			doc := g.object(parsed(t, s.file))
			text, err := json.Marshal(doc)
			if err != nil {
				t.Fatal(err)
			}
			if s.agree(t, string(text)) {
				accepted[s.name]++
			}
			if env, ok := environments[s.name]; ok {
				env(t, doc)
			}
		}
	}
	for _, s := range all { // draws of which all are refused, or none, would show little
		if n := accepted[s.name]; n < 100 || n > 1900 {
			t.Errorf("%s: %d of 2000 are accepted", s.name, n)
		}
	}
}

var schemas = map[string]map[string]any{}

func parsed(t testing.TB, file string) map[string]any {
	if schemas[file] == nil {
		var doc map[string]any
		name, within, _ := strings.Cut(file, "#/$defs/")
		if err := json.Unmarshal(readSchema(t, name), &doc); err != nil {
			t.Fatal(err)
		}
		if within != "" {
			doc = doc["$defs"].(map[string]any)[within].(map[string]any)
		}
		schemas[file] = doc
	}
	return schemas[file]
}

// A drawer draws objects with the fields of a schema. Of chance values one is odd.
type drawer struct {
	*rand.Rand
	chance int
}

func pick[T any](g *drawer, of ...T) T { return of[g.IntN(len(of))] }

func (g *drawer) odd() bool { return g.IntN(g.chance) == 0 }

// rare is for what spoils the whole object.
func (g *drawer) rare() bool { return g.IntN(g.chance*g.chance) == 0 }

func (g *drawer) object(schema map[string]any) map[string]any {
	doc := map[string]any{}
	properties, _ := schema["properties"].(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		if name != "hosts" && g.IntN(3) > 0 { // hosts are needed
			continue
		}
		doc[name] = g.value(name, properties[name].(map[string]any))
	}
	if g.rare() {
		doc[pick(g, "", "x", "Type", "TTL", "addrs ")] = 1
	}
	return doc
}

func (g *drawer) value(name string, schema map[string]any) any {
	if g.rare() {
		return pick[any](g, nil, true, 0, 1, -1, 1.5, "", "x", "1s", []any{}, []any{"a"}, map[string]any{}, map[string]any{"a": 1})
	}
	words := func(key string) (found []string) {
		all, _ := schema[key].([]any)
		for _, w := range all {
			found = append(found, w.(string))
		}
		return found
	}
	switch kind := schema["type"].(type) {
	case []any: // an object, or false to switch it off
		if kind[0] == "object" && !g.odd() {
			return g.object(schema)
		}
		return g.IntN(2) == 0
	}
	switch schema["type"] {
	case "boolean":
		return g.IntN(2) == 0
	case "integer", "number":
		numbers := []any{1, 2, 8, 64, 0.25, json.Number("1e0"), json.Number("2.0")}
		for _, key := range []string{"minimum", "maximum"} {
			if n, ok := schema[key].(float64); ok {
				numbers = append(numbers, n)
				if g.odd() {
					numbers = append(numbers, n-1, n+1)
				}
			}
		}
		return pick(g, numbers...)
	case "array":
		var list []any
		for range 1 + g.IntN(2) {
			list = append(list, g.value(name, schema["items"].(map[string]any)))
		}
		return list
	case "object":
		return g.object(schema)
	}
	if all := words("enum"); len(all) > 0 && !g.odd() {
		return pick(g, all...)
	}
	if _, duration := schema["x-minimum"]; duration || strings.Contains(asString(schema["pattern"]), "(ns|us") {
		values := []string{"1s", "1m30s", "600ms", "0.75s"}
		for _, key := range []string{"x-minimum", "x-maximum"} {
			if limit := asString(schema[key]); limit != "" {
				values = append(values, limit)
			}
		}
		if g.odd() {
			values = append(values, "0", "0s", "-1s", "1ns", "9ms", "6m", "25h", "1", "", "s", "900000h")
		}
		return pick(g, values...)
	}
	values := []string{"a", "ab", "lockstep", "h:1", "localhost:6379"}
	if name == "hosts" {
		values = values[:2]
	}
	if g.odd() {
		values = append(values, "", ":", "a{", "token:", "tokens", "é", strings.Repeat("p", 128), strings.Repeat("p", 129), "A", " ", "/run/s")
	}
	return pick(g, values...)
}

func asString(v any) string { s, _ := v.(string); return s }

// environments compare what the environment and JSON make of an object.
var environments = map[string]func(t testing.TB, doc map[string]any){
	"whole": func(t testing.TB, doc map[string]any) {
		doc = maps.Clone(doc)
		for _, name := range []string{"type", "backend", "$schema"} {
			delete(doc, name)
		}
		sameFromEnvironment(t, "LOCKSTEP", doc, parsed(t, "docs/lockstep.schema.json"), func(text string) (any, error) {
			cfg, err := locker.LoadConfig(text)
			return cfg.String(), err
		})
	},
	"sample":   backendEnvironment("LOCKSTEP_SAMPLE", "internal/config/sample/config.schema.json", "test-sample"),
	"redis":    backendEnvironment("LOCKSTEP_REDIS", "docs/lockstep.schema.json#/$defs/redis", "test-redis"),
	"memory":   backendEnvironment("LOCKSTEP_MEMORY", "docs/lockstep.schema.json#/$defs/memory", "test-memory"),
	"postgres": backendEnvironment("LOCKSTEP_POSTGRES", "docs/lockstep.schema.json#/$defs/postgres", "test-postgres"),
}

func backendEnvironment(prefix, file, typ string) func(t testing.TB, doc map[string]any) {
	return func(t testing.TB, doc map[string]any) {
		schema := parsed(t, file)
		sameFromEnvironment(t, prefix, doc, schema, func(text string) (any, error) { return loadBackend(typ, text) })
	}
}

// sameFromEnvironment loads doc as JSON, and as variables over an empty object.
func sameFromEnvironment(t testing.TB, prefix string, doc, schema map[string]any, load func(text string) (any, error)) {
	t.Helper()
	variables := map[string]any{}
	if !asVariables(prefix, doc, schema, variables) {
		return
	}
	text, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	fromJSON, errJSON := load(string(text))
	for name, v := range variables {
		os.Setenv(name, v.(string))
	}
	fromEnv, errEnv := load(`{}`)
	for name := range variables {
		os.Unsetenv(name)
	}
	// Of several mistakes each names the first in its own order.
	if (errJSON == nil) != (errEnv == nil) || errJSON == nil && !reflect.DeepEqual(fromJSON, fromEnv) {
		t.Errorf("from JSON:            %v, %v\nfrom the environment: %v, %v\n%s", fromJSON, errJSON, fromEnv, errEnv, text)
	}
	var wrong *driver.FieldError
	if errors.As(errEnv, &wrong) && variables[prefix+"_HOSTS"] != nil && !strings.Contains(errEnv.Error(), prefix+"_") {
		t.Errorf("the error does not name the variable: %v", errEnv)
	}
}

// asVariables writes doc, an object of schema, into variables; ok is false if it has something
// that no variable can say, or that JSON and variables say in different ways.
func asVariables(prefix string, doc, schema, variables map[string]any) (ok bool) {
	properties, _ := schema["properties"].(map[string]any)
	for name, v := range doc {
		property, known := properties[name].(map[string]any)
		if !known {
			return false
		}
		name = prefix + "_" + variable(name)
		switch v := v.(type) {
		case string:
			if property["type"] != "string" || v == "" {
				return false
			}
			variables[name] = v
		case bool:
			if !mayBe(property, "boolean") {
				return false
			}
			variables[name] = strconv.FormatBool(v)
		case []any:
			var items []string
			for _, item := range v {
				if s, isText := item.(string); isText && s != "" && s == strings.TrimSpace(s) {
					items = append(items, s)
				}
			}
			if property["type"] != "array" || len(items) == 0 || len(items) != len(v) {
				return false
			}
			variables[name] = strings.Join(items, ",")
		case map[string]any:
			if !mayBe(property, "object") || isZero(v) || !asVariables(name, v, property, variables) {
				return false
			}
		default:
			n, err := json.Marshal(v)
			integer := property["type"] == "integer" && !strings.ContainsAny(string(n), ".e") // to JSON, 1e0 is a whole number
			if err != nil || v == nil || !integer && property["type"] != "number" {
				return false
			}
			variables[name] = string(n)
		}
	}
	return true
}

// mayBe says whether a schema's type is kind, or one of several that are.
func mayBe(schema map[string]any, kind string) bool {
	all, several := schema["type"].([]any)
	return schema["type"] == kind || several && slices.Contains(all, any(kind))
}

// isZero is whether all in an object is zero: in JSON it is there all the same, by variables not.
func isZero(v map[string]any) bool {
	for _, in := range v {
		switch in := in.(type) {
		case map[string]any:
			if !isZero(in) {
				return false
			}
		default:
			if v := reflect.ValueOf(in); v.IsValid() && !v.IsZero() {
				return false
			}
		}
	}
	return true
}

// variable is written anew, so that it can disagree with lockgen's.
func variable(name string) string {
	var b strings.Builder
	for i, r := range name {
		if i > 0 && 'A' <= r && r <= 'Z' && (name[i-1] < 'A' || 'Z' < name[i-1]) {
			b.WriteByte('_')
		}
		b.WriteString(strings.ToUpper(string(r)))
	}
	return b.String()
}
