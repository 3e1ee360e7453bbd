// Command generate writes what is made from the catalogue of metrics: the table in the documents, a
// Grafana dashboard and Prometheus' alert rules. It is run from the repository's root.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"slices"
	"strings"

	"github.com/lockstep-go/lockstep/adapters/otel/internal/catalogue"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("generate: ")
	table := flag.String("table", "", "the Markdown file that gets the table, between its marks")
	dashboard := flag.String("dashboard", "", "the file for Grafana's dashboard")
	alerts := flag.String("alerts", "", "the file for Prometheus' rules")
	flag.Parse()
	if err := run(*table, *dashboard, *alerts); err != nil {
		log.Fatal(err)
	}
}

func run(table, dashboard, alerts string) error {
	page, err := os.ReadFile(table)
	if err != nil {
		return err
	}
	if page, err = between(page, metricsTable()+"\n"+alertsTable()); err != nil {
		return fmt.Errorf("%s: %w", table, err)
	}
	board, err := grafana()
	if err != nil {
		return err
	}
	for name, data := range map[string][]byte{table: page, dashboard: board, alerts: []byte(rules())} {
		if err := os.WriteFile(name, data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

const begin, end = "<!-- begin metrics: written by make generate -->\n", "<!-- end metrics -->"

func between(page []byte, text string) ([]byte, error) {
	before, rest, ok := bytes.Cut(page, []byte(begin))
	_, after, closed := bytes.Cut(rest, []byte(end))
	if !ok || !closed {
		return nil, fmt.Errorf("the marks %q and %q are not there", strings.TrimSpace(begin), end)
	}
	return bytes.Join([][]byte{before, []byte(begin), []byte(text), []byte(end), after}, nil), nil
}

func metricsTable() string {
	var b strings.Builder
	b.WriteString("\n| metric | in Prometheus | kind, unit | attributes | what it says |\n|---|---|---|---|---|\n")
	for _, m := range catalogue.All {
		fmt.Fprintf(&b, "| `%s` | `%s` | %s, `%s` | `%s` | %s |\n", m.Name, m.Prometheus(), m.Kind, m.Unit,
			strings.Join(m.Attributes, "`, `"), m.Help)
	}
	return b.String()
}

func alertsTable() string {
	var b strings.Builder
	b.WriteString("| alert | severity | what it says | what to do |\n|---|---|---|---|\n")
	for _, m := range catalogue.All {
		for _, a := range m.Alerts {
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", a.Name, a.Severity, strings.NewReplacer("{{ $labels.lockstep_", "_", " }}", "_").Replace(a.Summary), a.Do)
		}
	}
	return b.String() + "\n"
}

// rules are in YAML, which %q's escapes are part of.
func rules() string {
	var b strings.Builder
	b.WriteString("# Written by make generate from adapters/otel/internal/catalogue.\ngroups:\n  - name: lockstep\n    rules:\n")
	for _, m := range catalogue.All {
		for _, a := range m.Alerts {
			fmt.Fprintf(&b, "      - alert: %s\n        expr: |\n", a.Name)
			for line := range strings.Lines(strings.ReplaceAll(a.Expr, "$metric", m.Prometheus())) {
				fmt.Fprintf(&b, "          %s\n", strings.TrimRight(line, "\n"))
			}
			fmt.Fprintf(&b, "        for: %s\n        labels:\n          severity: %s\n        annotations:\n          summary: %q\n          description: %q\n",
				a.For, a.Severity, a.Summary, a.Do)
		}
	}
	return b.String()
}

// object has its keys sorted when it is written, so that the file does not change by itself.
type object = map[string]any

const filter = `{lockstep_backend=~"$backend", lockstep_label=~"$label"}`

// targets are the queries of a panel.
func targets(m catalogue.Metric) []object {
	by := catalogue.PrometheusLabel(m.Legend)
	filter := filter
	if !slices.Contains(m.Attributes, catalogue.Label) {
		filter = `{lockstep_backend=~"$backend"}`
	}
	query := func(expr, legend string) object { return object{"expr": expr, "legendFormat": legend} }
	legend := "{{" + by + "}}"
	var all []object
	switch {
	case m.Kind == catalogue.Histogram:
		for _, q := range []struct{ of, name string }{{"0.5", "p50"}, {"0.99", "p99"}} {
			all = append(all, query(fmt.Sprintf("histogram_quantile(%s, sum by (le, %s) (rate(%s_bucket%s[$__rate_interval])))", q.of, by, m.Prometheus(), filter),
				legend+" "+q.name))
		}
	case m.Kind == catalogue.UpDownCounter:
		all = append(all, query(fmt.Sprintf("sum by (%s) (%s%s)", by, m.Prometheus(), filter), legend))
	case strings.HasSuffix(m.Panel, "minute"):
		all = append(all, query(fmt.Sprintf("60 * sum by (%s) (rate(%s%s[$__rate_interval]))", by, m.Prometheus(), filter), legend))
	default:
		all = append(all, query(fmt.Sprintf("sum by (%s) (rate(%s%s[$__rate_interval]))", by, m.Prometheus(), filter), legend))
	}
	for i, t := range all {
		t["refId"] = string(rune('A' + i))
		t["datasource"] = source
	}
	return all
}

var source = object{"type": "prometheus", "uid": "${datasource}"}

func grafana() ([]byte, error) {
	var panels []object
	for i, m := range catalogue.All {
		unit := "short"
		if m.Unit == "s" {
			unit = "s"
		}
		panels = append(panels, object{
			"id": i + 1, "type": "timeseries", "title": m.Panel, "description": m.Help,
			"datasource":  source,
			"gridPos":     object{"x": i % 2 * 12, "y": i / 2 * 8, "w": 12, "h": 8},
			"targets":     targets(m),
			"fieldConfig": object{"defaults": object{"unit": unit, "min": 0}, "overrides": []object{}},
			"options":     object{"legend": object{"displayMode": "list", "placement": "bottom"}, "tooltip": object{"mode": "multi"}},
		})
	}
	choice := func(name, label string) object {
		return object{
			"name": name, "label": name, "type": "query", "datasource": source, "refresh": 2,
			"query":      object{"query": fmt.Sprintf("label_values(%s, %s)", catalogue.Acquisitions.Prometheus(), label), "refId": name},
			"includeAll": true, "multi": true, "allValue": ".*",
			"current": object{"text": "All", "value": "$__all"},
		}
	}
	data, err := json.MarshalIndent(object{
		"title": "Lockstep", "uid": "lockstep", "tags": []string{"lockstep"},
		"schemaVersion": 39, "editable": true, "refresh": "30s",
		"time": object{"from": "now-1h", "to": "now"},
		"templating": object{"list": []object{
			{"name": "datasource", "label": "data source", "type": "datasource", "query": "prometheus"},
			choice("backend", catalogue.PrometheusLabel(catalogue.Backend)),
			choice("label", catalogue.PrometheusLabel(catalogue.Label)),
		}},
		"panels": panels,
	}, "", "  ")
	return append(data, '\n'), err
}
