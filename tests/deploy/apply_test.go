package deploy

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"sigs.k8s.io/yaml"
)

// A Deployment in a cluster, with the annotation of `kubectl apply`: the manifest that was applied last.
type applied struct {
	live        *appsv1.Deployment
	lastApplied []byte
}

// apply changes a Deployment like `kubectl apply` and then the API server, with their code. It creates a nil one.
func (a *applied) apply(t *testing.T, manifest []byte) {
	t.Helper()
	modified, err := yaml.YAMLToJSON(manifest)
	if err != nil {
		t.Fatal(err)
	}
	merged := modified
	if a.live != nil {
		live, err := json.Marshal(a.live)
		if err != nil {
			t.Fatal(err)
		}
		meta, err := strategicpatch.NewPatchMetaFromStruct(appsv1.Deployment{})
		if err != nil {
			t.Fatal(err)
		}
		patch, err := strategicpatch.CreateThreeWayMergePatch(a.lastApplied, modified, live, meta, true)
		if err != nil {
			t.Fatal(err)
		}
		if merged, err = strategicpatch.StrategicMergePatchUsingLookupPatchMeta(live, patch, meta); err != nil {
			t.Fatal(err)
		}
	}
	var made appsv1.Deployment
	if err := json.Unmarshal(merged, &made); err != nil {
		t.Fatal(err)
	}
	legacyscheme.Scheme.Default(&made)
	a.live, a.lastApplied = &made, modified
}

// scale applies the bounds of an autoscaler, regardless of its metrics.
func (a *applied) scale(scaler *autoscalingv2.HorizontalPodAutoscaler) {
	number := min(max(*a.live.Spec.Replicas, *scaler.Spec.MinReplicas), scaler.Spec.MaxReplicas)
	a.live.Spec.Replicas = &number
}

var scaledBridges = []string{"runnel-sse", "runnel-ws"}

func manifestOf(t *testing.T, objects []object, id string) []byte {
	t.Helper()
	for _, each := range objects {
		if each.id == id {
			return each.yaml
		}
	}
	t.Fatalf("there is no %s", id)
	return nil
}

func scalerOf(t *testing.T, objects []object, name string) *autoscalingv2.HorizontalPodAutoscaler {
	t.Helper()
	scaler, ok := named[*autoscalingv2.HorizontalPodAutoscaler](objects, name)
	if !ok || scaler.Spec.ScaleTargetRef.Name != name || scaler.Spec.MinReplicas == nil {
		t.Fatalf("%s has no autoscaler with minReplicas", name)
	}
	return scaler
}

// fixedNumber is production without components/autoscaling.
func fixedNumber(t *testing.T) []object {
	t.Helper()
	objects, err := renderChanged(productionFile, "  - ../../components/autoscaling\n", "")
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func TestAutoscalingIsAddedWithoutStoppingABridge(t *testing.T) {
	fixed := fixedNumber(t)
	autoscaled, err := render(deployDir + "/kubernetes/overlays/production")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range scaledBridges {
		var bridge applied
		bridge.apply(t, manifestOf(t, fixed, "Deployment/"+name))
		bridge.scale(scalerOf(t, fixed, name))
		if *bridge.live.Spec.Replicas != 3 {
			t.Errorf("%s: %d bridges without autoscaling, want 3", name, *bridge.live.Spec.Replicas)
		}
		// In either order of Deployment and autoscaler.
		bridge.apply(t, manifestOf(t, autoscaled, "Deployment/"+name))
		if *bridge.live.Spec.Replicas != 3 {
			t.Errorf("%s: scaled from 3 to %d by adding the autoscaler", name, *bridge.live.Spec.Replicas)
		}
		bridge.scale(scalerOf(t, autoscaled, name))
		if *bridge.live.Spec.Replicas != 3 {
			t.Errorf("%s: the autoscaler starts with %d", name, *bridge.live.Spec.Replicas)
		}
		grown := int32(12)
		bridge.live.Spec.Replicas = &grown
		bridge.apply(t, manifestOf(t, autoscaled, "Deployment/"+name))
		if *bridge.live.Spec.Replicas != grown {
			t.Errorf("%s: applied again, scaled from %d to %d", name, grown, *bridge.live.Spec.Replicas)
		}
	}
}

func TestWithoutAutoscalingTheNumberIsFixed(t *testing.T) {
	objects := fixedNumber(t)
	for _, name := range scaledBridges {
		spec := scalerOf(t, objects, name).Spec
		if *spec.MinReplicas != 3 || spec.MaxReplicas != 3 || len(spec.Metrics) != 0 {
			t.Errorf("%s: %d to %d bridges by metrics %v, want 3 without metrics", name, *spec.MinReplicas, spec.MaxReplicas, spec.Metrics)
		}
	}
}

const withReplicas = "spec:\n  replicas: 3\n"

// The release before had `replicas: 3` in the manifests of those who did not autoscale; deploy/README.md, "Upgrade".
func TestANumberThatLeavesAManifestNeedsTheStepOfTheReadme(t *testing.T) {
	now := manifestOf(t, fixedNumber(t), "Deployment/runnel-sse")
	before := []byte(strings.Replace(string(now), "spec:\n", withReplicas, 1))
	var bridge applied
	bridge.apply(t, before)
	bridge.apply(t, now)
	if *bridge.live.Spec.Replicas != 1 {
		t.Errorf("%d bridges: the README's step is not needed, so this test shows nothing", *bridge.live.Spec.Replicas)
	}
	bridge = applied{}
	bridge.apply(t, before)
	bridge.lastApplied = editAsReadmeSays(t, before)
	bridge.apply(t, now)
	if *bridge.live.Spec.Replicas != 3 {
		t.Errorf("%d bridges after the README's step, want 3", *bridge.live.Spec.Replicas)
	}
}

// editAsReadmeSays runs the editor that deploy/README.md gives to `kubectl apply edit-last-applied`.
func editAsReadmeSays(t *testing.T, manifest []byte) []byte {
	t.Helper()
	_, after, found := strings.Cut(string(readFile(t, "../../deploy/README.md")), `KUBE_EDITOR="`)
	editor, command, closed := strings.Cut(after, `"`)
	if !found || !closed || !strings.HasPrefix(command, " kubectl -n runnel apply edit-last-applied deployment/runnel-sse") {
		t.Fatal("deploy/README.md has no step with KUBE_EDITOR")
	}
	// The editor gets several objects as a list.
	file := t.TempDir() + "/manifests.yaml"
	item := "- " + strings.ReplaceAll(strings.TrimSpace(string(manifest)), "\n", "\n  ") + "\n"
	writeFile(t, file, []byte("apiVersion: v1\nkind: List\nitems:\n"+item+item))
	// Like kubectl runs it.
	if output, err := exec.Command("/bin/sh", "-c", editor+" "+file).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", editor, err, output)
	}
	var edited struct{ Items []json.RawMessage }
	if err := yaml.Unmarshal(readFile(t, file), &edited); err != nil || len(edited.Items) != 2 {
		t.Fatalf("%d objects: %v", len(edited.Items), err)
	}
	return edited.Items[1]
}
