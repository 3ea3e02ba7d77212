package deploy

import (
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// An end of a connection, as seen by policies.
type end struct {
	namespace map[string]string // labels of its namespace; nil: the namespace runnel
	pod       map[string]string // labels
}

func matches(selector *metav1.LabelSelector, set map[string]string) bool {
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && parsed.Matches(labels.Set(set))
}

func isPeer(peers []networkingv1.NetworkPolicyPeer, other end) bool {
	for _, peer := range peers {
		if peer.IPBlock != nil {
			continue // outside the cluster, not a pod
		}
		inNamespace := other.namespace == nil
		if peer.NamespaceSelector != nil {
			inNamespace = matches(peer.NamespaceSelector, other.namespace)
		}
		if inNamespace && (peer.PodSelector == nil || matches(peer.PodSelector, other.pod)) {
			return true
		}
	}
	return false
}

func hasPort(ports []networkingv1.NetworkPolicyPort, port int) bool {
	for _, each := range ports {
		if each.Port != nil && each.Port.IntValue() == port {
			return true
		}
	}
	return false
}

// mayReach returns whether the policies let one end connect to a port of the other. Ends outside have no policies.
func mayReach(policies []*networkingv1.NetworkPolicy, from, to end, port int) bool {
	leaves, enters := from.namespace != nil, to.namespace != nil
	for _, policy := range policies {
		if from.namespace == nil && matches(&policy.Spec.PodSelector, from.pod) {
			for _, rule := range policy.Spec.Egress {
				leaves = leaves || isPeer(rule.To, to) && hasPort(rule.Ports, port)
			}
		}
		if to.namespace == nil && matches(&policy.Spec.PodSelector, to.pod) {
			for _, rule := range policy.Spec.Ingress {
				enters = enters || isPeer(rule.From, from) && hasPort(rule.Ports, port)
			}
		}
	}
	return leaves && enters
}

func deniesByDefault(policies []*networkingv1.NetworkPolicy) bool {
	for _, policy := range policies {
		spec := policy.Spec
		rules := len(spec.Ingress) + len(spec.Egress)
		if len(spec.PodSelector.MatchLabels) == 0 && len(spec.PolicyTypes) == 2 && rules == 0 {
			return true
		}
	}
	return false
}

func TestPoliciesLetInWhoHasToComeAndNobodyElse(t *testing.T) {
	named := func(name string) map[string]string { return map[string]string{"kubernetes.io/metadata.name": name} }
	access := func(what string) map[string]string { return map[string]string{"runnel-access": what} }
	forEachWiring(t, func(t *testing.T, objects []object, all []*workload) {
		policies := ofType[*networkingv1.NetworkPolicy](objects)
		if !deniesByDefault(policies) {
			t.Fatal("there is no default-deny policy")
		}
		pods := map[string]end{
			"gateway": {namespace: access("gateway")}, "caller": {namespace: access("grpc")},
			"prometheus": {namespace: named("monitoring")}, "stranger": {namespace: named("default")}, "neighbour": {},
			"dns": {namespace: named("kube-system"), pod: map[string]string{"k8s-app": "kube-dns"}},
		}
		for _, w := range append(stores(objects), all...) {
			pods[w.component] = end{pod: w.podLabels()}
		}
		// Replicas ask each other whether they still run a generation, if others can continue it.
		_, shared := inferenceOf(t, objects).flags["log"]
		for _, row := range []struct {
			from, to string
			port     int
			want     bool
		}{
			{"sse", "inference", 50051, true}, {"ws", "inference", 50051, true}, {"caller", "inference", 50051, true},
			{"gateway", "sse", 8080, true}, {"gateway", "ws", 8080, true},
			{"prometheus", "inference", 9090, true}, {"prometheus", "sse", 9090, true}, {"prometheus", "ws", 9090, true},
			{"sse", "dns", 53, true}, {"ws", "dns", 53, true}, {"inference", "dns", 53, true},
			{"gateway", "inference", 50051, false}, {"gateway", "sse", 9090, false}, {"gateway", "inference", 9090, false},
			{"stranger", "sse", 8080, false}, {"stranger", "inference", 50051, false}, {"stranger", "sse", 9090, false},
			{"neighbour", "inference", 50051, false}, {"neighbour", "sse", 8080, false},
			{"prometheus", "inference", 50051, false},
			{"sse", "ws", 8080, false}, {"inference", "sse", 8080, false}, {"sse", "stranger", 443, false},
			{"inference", "stranger", 443, false}, {"sse", "inference", 9090, false}, {"inference", "inference", 50051, shared},
			{"inference", "inference", 9090, false},
			{"inference", "redis", 6379, true}, {"redis", "dns", 53, true}, {"sse", "redis", 6379, false},
			{"ws", "redis", 6379, false}, {"gateway", "redis", 6379, false}, {"caller", "redis", 6379, false},
			{"prometheus", "redis", 6379, false}, {"stranger", "redis", 6379, false}, {"neighbour", "redis", 6379, false},
			{"redis", "inference", 50051, false}, {"redis", "sse", 8080, false}, {"redis", "stranger", 443, false},
		} {
			if _, ok := pods["redis"]; !ok && (row.from == "redis" || row.to == "redis") {
				continue
			}
			if got := mayReach(policies, pods[row.from], pods[row.to], row.port); got != row.want {
				t.Errorf("%s -> %s:%d: allowed is %v", row.from, row.to, row.port, got)
			}
		}
		for _, w := range all {
			if port := w.flagPort("listen"); port != "50051" && port != "8080" || w.flagPort("admin_listen") != "9090" {
				t.Errorf("%s listens on ports that are not in the table above", w.Name)
			}
		}
	})
}
