package deploy

import (
	"slices"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// hostOf returns the one host name of the bridges, for the page, SSE and WebSocket.
func hostOf(t *testing.T, objects []object) string {
	t.Helper()
	hosts := map[string]bool{}
	for _, route := range ofType[*gatewayv1.HTTPRoute](objects) {
		for _, host := range route.Spec.Hostnames {
			hosts[string(host)] = true
		}
	}
	for _, ingress := range ofType[*networkingv1.Ingress](objects) {
		for _, rule := range ingress.Spec.Rules {
			hosts[rule.Host] = true
		}
		for _, tls := range ingress.Spec.TLS {
			for _, host := range tls.Hosts {
				hosts[host] = true
			}
		}
	}
	if len(hosts) > 1 {
		t.Errorf("more than one host: %v", hosts)
	}
	for host := range hosts {
		return host
	}
	return ""
}

func TestPageAndBothBridgesHaveOneOrigin(t *testing.T) {
	forEachWiring(t, func(t *testing.T, objects []object, all []*workload) {
		host := hostOf(t, objects)
		if host == "" {
			return // only reachable by port-forward
		}
		for _, w := range all {
			if w.component == "sse" && w.flags["websocket_url"] != "wss://"+host+"/v1/ws" {
				t.Errorf("the page is on %s, but its WebSocket URL is %s", host, w.flags["websocket_url"])
			}
			if w.component != "inference" && (w.flags["api_keys_file"] == "" || w.flags["allow_anonymous"] != "") {
				t.Errorf("%s is public and requires no key", w.Name)
			}
		}
	})
}

func TestStreamsHaveNoRequestTimeout(t *testing.T) {
	forEachWiring(t, func(t *testing.T, objects []object, _ []*workload) {
		for _, route := range ofType[*gatewayv1.HTTPRoute](objects) {
			for _, rule := range route.Spec.Rules {
				if len(rule.BackendRefs) == 0 {
					continue
				}
				if rule.Timeouts == nil || rule.Timeouts.Request == nil || *rule.Timeouts.Request != "0s" {
					t.Errorf("%s has a rule with a request timeout", route.Name)
				}
			}
		}
		for _, ingress := range ofType[*networkingv1.Ingress](objects) {
			for name, want := range map[string]string{
				"proxy-buffering": "off", "proxy-http-version": "1.1", "proxy-read-timeout": "3600", "proxy-send-timeout": "3600",
			} {
				if got := ingress.Annotations["nginx.ingress.kubernetes.io/"+name]; got != want {
					t.Errorf("%s is %q, streams need %q", name, got, want)
				}
			}
		}
	})
}

// parents returns the objects to which the routes of an overlay are attached.
func parents(objects []object) (refs []gatewayv1.ParentReference, hosts []gatewayv1.Hostname) {
	for _, route := range ofType[*gatewayv1.HTTPRoute](objects) {
		refs, hosts = append(refs, route.Spec.ParentRefs...), append(hosts, route.Spec.Hostnames...)
	}
	for _, route := range ofType[*gatewayv1.GRPCRoute](objects) {
		refs, hosts = append(refs, route.Spec.ParentRefs...), append(hosts, route.Spec.Hostnames...)
	}
	return refs, hosts
}

func TestRoutesHangOnListenersOfTheirHost(t *testing.T) {
	forEachWiring(t, func(t *testing.T, objects []object, _ []*workload) {
		listeners := map[string]gatewayv1.Hostname{}
		for _, gateway := range ofType[*gatewayv1.Gateway](objects) {
			for _, listener := range gateway.Spec.Listeners {
				listeners[gateway.Name+"/"+string(listener.Name)] = *listener.Hostname
				if listener.Protocol == gatewayv1.HTTPSProtocolType && len(listener.TLS.CertificateRefs) == 0 {
					t.Errorf("%s has no certificate", listener.Name)
				}
			}
		}
		refs, hosts := parents(objects)
		for _, ref := range refs {
			host, ok := listeners[string(ref.Name)+"/"+string(*ref.SectionName)]
			if !ok || !slices.Contains(hosts, host) {
				t.Errorf("a route refers to %s/%s, which does not exist or has none of the route's hosts", ref.Name, *ref.SectionName)
			}
		}
	})
}
