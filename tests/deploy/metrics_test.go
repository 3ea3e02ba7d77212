package deploy

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// Metrics of Prometheus itself, the kubelet and kube-state-metrics.
var metricsOfOthers = map[string]bool{
	"up": true, "container_memory_working_set_bytes": true, "container_cpu_usage_seconds_total": true,
	"kube_pod_container_resource_limits": true,
}

var sampleLine = regexp.MustCompile(`(?m)^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{([^}]*)\})? `)

// servedMetrics returns the metrics of the three programs after a generation was read, and another one that no replica
// knows was asked for: names and their label names. The store of the shared log is not reached, so that its failures are
// counted too.
func servedMetrics(t *testing.T) map[string]map[string]bool {
	t.Helper()
	inference := start(t, "runnel-inference", "--engine=scripted", "--scripted_tokens=5",
		"--scripted_tokens_per_second=1000", "--log=redis://127.0.0.1:1")
	bridges := []process{
		start(t, "runnel-sse", "--inference=127.0.0.1:"+inference.port),
		start(t, "runnel-ws", "--inference=127.0.0.1:"+inference.port),
	}
	get(t, "http://127.0.0.1:"+bridges[0].admin+"/readyz")
	response, err := http.Post("http://127.0.0.1:"+bridges[0].port+"/v1/generations", "application/json",
		strings.NewReader(`{"prompt":"x","stream":true}`))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); err != nil || !strings.Contains(string(body), `"type":"done"`) {
		t.Fatalf("no generation: %v %s", err, body)
	}
	if unknown, err := http.Get("http://127.0.0.1:" + bridges[0].port + "/v1/generations/gen_aaaaaaaaaaaaaaaaaaaaaaaaaa"); err == nil {
		unknown.Body.Close()
	}
	served := map[string]map[string]bool{}
	for _, each := range append(bridges, inference) {
		text := get(t, "http://127.0.0.1:"+each.admin+"/metrics")
		for _, match := range sampleLine.FindAllStringSubmatch(text, -1) {
			if served[match[1]] == nil {
				served[match[1]] = map[string]bool{"namespace": true, "pod": true, "job": true}
			}
			for _, label := range strings.Split(match[2], ",") {
				name, _, _ := strings.Cut(label, "=")
				served[match[1]][name] = true
			}
		}
	}
	return served
}

// problemsOf returns the metrics and labels of an expression that no program serves.
func problemsOf(expression string, served map[string]map[string]bool) (problems []string) {
	parsed, err := parser.NewParser(parser.Options{}).ParseExpr(expression)
	if err != nil {
		return []string{expression + ": " + err.Error()}
	}
	parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
		selector, ok := node.(*parser.VectorSelector)
		if !ok || metricsOfOthers[selector.Name] {
			return nil
		}
		if served[selector.Name] == nil {
			problems = append(problems, expression+": no program serves "+selector.Name)
			return nil
		}
		for _, matcher := range selector.LabelMatchers {
			if matcher.Name != "__name__" && !served[selector.Name][matcher.Name] {
				problems = append(problems, expression+": "+selector.Name+" has no label "+matcher.Name)
			}
		}
		return nil
	})
	return problems
}

type dashboard struct {
	Panels []struct {
		Title   string
		Type    string
		Targets []struct{ Expr string }
	}
}

// The metrics that must be on the dashboard.
var wantedOnDashboard = []string{
	"runnel_time_to_first_token_seconds_bucket", "runnel_inter_token_latency_seconds_bucket", "runnel_streams_active",
	"runnel_resumes_total", "runnel_detached_generation_tokens_total", "runnel_requests_waiting",
	"container_memory_working_set_bytes", "runnel_log_append_seconds_bucket", "runnel_log_unprotected",
	"runnel_log_unprotected_seconds_total", "runnel_takeovers_total", "runnel_log_refilled_events_total",
	"runnel_log_fenced_total", "runnel_log_reads_total",
}

func TestDashboardAsksForWhatIsServed(t *testing.T) {
	served := servedMetrics(t)
	var board dashboard
	objects, err := render(overlays[1])
	if err != nil {
		t.Fatal(err)
	}
	configMap, ok := named[*corev1.ConfigMap](objects, "runnel-dashboard")
	if !ok || configMap.Labels["grafana_dashboard"] == "" {
		t.Fatal("no ConfigMap that Grafana's sidecar would load")
	}
	if err := json.Unmarshal([]byte(configMap.Data["runnel.json"]), &board); err != nil {
		t.Fatal(err)
	}
	variables := strings.NewReplacer("$namespace", "runnel", "$__rate_interval", "1m")
	all := ""
	for _, panel := range board.Panels {
		if panel.Type != "row" && len(panel.Targets) == 0 {
			t.Errorf("%s shows nothing", panel.Title)
		}
		for _, target := range panel.Targets {
			all += target.Expr + "\n"
			report(t, panel.Title, problemsOf(variables.Replace(target.Expr), served))
		}
	}
	for _, name := range wantedOnDashboard {
		if !strings.Contains(all, name) {
			t.Errorf("%s is not on the dashboard", name)
		}
	}
}

func TestAlertsAskForWhatIsServedAndSayWhatToDo(t *testing.T) {
	served := servedMetrics(t)
	objects, err := render(overlays[1])
	if err != nil {
		t.Fatal(err)
	}
	rules := ofType[*monitoringv1.PrometheusRule](objects)
	if len(rules) == 0 {
		t.Fatal("no alerts")
	}
	for _, rule := range rules {
		asFile, err := yaml.Marshal(rule.Spec)
		if err != nil {
			t.Fatal(err)
		}
		_, errors := rulefmt.Parse(asFile, false, model.UTF8Validation, parser.NewParser(parser.Options{}), slog.Default())
		for _, err := range errors {
			t.Error(err)
		}
		for _, group := range rule.Spec.Groups {
			for _, alert := range group.Rules {
				report(t, alert.Alert, problemsOf(alert.Expr.String(), served))
				said := alert.Annotations
				if said["runbook"] == "" || said["summary"] == "" || alert.Labels["severity"] == "" {
					t.Errorf("%s lacks a meaning, a severity or a remedy", alert.Alert)
				}
			}
		}
	}
}

func TestMonitorFindsTheAdminPorts(t *testing.T) {
	objects, err := render(overlays[1])
	if err != nil {
		t.Fatal(err)
	}
	all, err := workloads(objects)
	if err != nil {
		t.Fatal(err)
	}
	for _, monitor := range ofType[*monitoringv1.ServiceMonitor](objects) {
		scraped := map[string]bool{}
		for _, service := range ofType[*corev1.Service](objects) {
			if !matches(&monitor.Spec.Selector, service.Labels) {
				continue
			}
			for _, w := range selected(service.Spec.Selector, all) {
				if scraped[w.Name] {
					t.Errorf("%s is scraped twice", w.Name)
				}
				port, err := w.port(service.Spec.Ports[0].TargetPort)
				scraped[w.Name] = err == nil && w.flagPort("admin_listen") == fmt.Sprint(port) &&
					service.Spec.Ports[0].Name == monitor.Spec.Endpoints[0].Port
			}
		}
		for _, w := range all {
			if !scraped[w.Name] {
				t.Errorf("%s is not scraped", w.Name)
			}
		}
	}
}

func TestExpressionsOverUnknownMetricsAreSeen(t *testing.T) {
	served := map[string]map[string]bool{"known": {"pod": true}}
	for _, expression := range []string{
		`unknown`, `rate(unknown[5m])`, `known{nope="1"}`, `sum by (`, `known + on(pod) other`,
	} {
		if len(problemsOf(expression, served)) == 0 {
			t.Errorf("%s was not detected", expression)
		}
	}
	report(t, "the good one", problemsOf(`sum by (pod) (rate(known{pod="a"}[5m]))`, served))
}
