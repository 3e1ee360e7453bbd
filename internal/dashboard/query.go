package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// panel is a panel of the dashboard with what Prometheus answered.
type panel struct {
	title, unit string
	lines       []line
}

type line struct {
	legend string
	points [][2]float64 // seconds since the begin, and the value
}

const step = 2 * time.Second

// query asks Prometheus for what the panels of the dashboard show.
func query(ctx context.Context, base, board string, began, ended time.Time) ([]panel, error) {
	data, err := os.ReadFile(board)
	if err != nil {
		return nil, err
	}
	var dashboard struct {
		Panels []struct {
			Title       string
			Targets     []struct{ Expr, LegendFormat string }
			FieldConfig struct{ Defaults struct{ Unit string } }
		}
	}
	if err := json.Unmarshal(data, &dashboard); err != nil {
		return nil, err
	}
	// What Grafana would put in place of its variables.
	variables := strings.NewReplacer("$__rate_interval", "15s", "$backend", ".*", "$label", ".*")
	var panels []panel
	for _, p := range dashboard.Panels {
		shown := panel{title: p.Title, unit: p.FieldConfig.Defaults.Unit}
		for _, t := range p.Targets {
			lines, err := queryRange(ctx, base, variables.Replace(t.Expr), t.LegendFormat, began, ended)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", p.Title, err)
			}
			shown.lines = append(shown.lines, lines...)
		}
		slices.SortFunc(shown.lines, func(a, b line) int { return cmp.Compare(a.legend, b.legend) })
		panels = append(panels, shown)
	}
	return panels, nil
}

var placeholder = regexp.MustCompile(`\{\{(\w+)\}\}`)

func queryRange(ctx context.Context, base, expr, legend string, began, ended time.Time) ([]line, error) {
	values := url.Values{"query": {expr}, "step": {step.String()},
		"start": {strconv.FormatInt(began.Unix(), 10)}, "end": {strconv.FormatInt(ended.Unix(), 10)}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/api/v1/query_range?"+values.Encode(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var answer struct {
		Status, Error string
		Data          struct {
			Result []struct {
				Metric map[string]string
				Values [][2]any
			}
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, err
	}
	if answer.Status != "success" {
		return nil, errors.New(answer.Error)
	}
	var lines []line
	for _, r := range answer.Data.Result {
		l := line{legend: placeholder.ReplaceAllStringFunc(legend, func(s string) string { return r.Metric[strings.Trim(s, "{}")] })}
		for _, v := range r.Values {
			at, _ := v[0].(float64)
			text, _ := v[1].(string)
			y, err := strconv.ParseFloat(text, 64)
			if err != nil || y != y { // a quantile of nothing is not a number
				continue
			}
			l.points = append(l.points, [2]float64{at - float64(began.Unix()), y})
		}
		if len(l.points) > 0 {
			lines = append(lines, l)
		}
	}
	return lines, nil
}
