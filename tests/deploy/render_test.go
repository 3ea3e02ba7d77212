// Package deploy checks the content of deploy/: the manifests like an API server, and against the programs themselves.
package deploy

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

const deployDir = "../../deploy"

// The overlays for users, and production with the components that it leaves out: both kinds of shared log exclude each
// other.
var overlays = []string{
	deployDir + "/kubernetes/overlays/local",
	deployDir + "/kubernetes/overlays/production",
	deployDir + "/kubernetes/overlays/production-ingress-nginx",
	"everything",
	withRedis,
	withRedisExternal,
}

// An object of a rendered overlay, with its Go type.
type object struct {
	id    string // Kind/name
	yaml  []byte
	typed runtime.Object
}

// The imports of validate_test.go register the built-in kinds in the scheme.
var strictDecoder = sync.OnceValues(func() (runtime.Decoder, error) {
	scheme := legacyscheme.Scheme
	for _, add := range []func(*runtime.Scheme) error{gatewayv1.Install, monitoringv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	return serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer(), nil
})

// decode rejects unknown kinds, fields that the kind does not have, and duplicate fields.
func decode(yaml []byte) (object, error) {
	decoder, err := strictDecoder()
	if err != nil {
		return object{}, err
	}
	typed, kind, err := decoder.Decode(yaml, nil, nil)
	if err != nil {
		return object{}, err
	}
	accessor, err := meta.Accessor(typed)
	if err != nil {
		return object{}, err
	}
	return object{id: kind.Kind + "/" + accessor.GetName(), yaml: yaml, typed: typed}, nil
}

// Caches the output of kustomize by folder. Tests run one after another.
var documents = map[string][][]byte{}

// kustomize returns the objects of a folder with a kustomization as text, like `kubectl kustomize`.
func kustomize(dir string) ([][]byte, error) {
	if made, ok := documents[dir]; ok {
		return made, nil
	}
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		return nil, err
	}
	var made [][]byte
	for _, resource := range resources.Resources() {
		yaml, err := resource.AsYAML()
		if err != nil {
			return nil, err
		}
		made = append(made, yaml)
	}
	documents[dir] = made
	return made, nil
}

// render returns the objects of a folder, new ones at each call, so that a test may change them.
func render(dir string) ([]object, error) {
	made, err := kustomize(dir)
	if err != nil {
		return nil, err
	}
	var objects []object
	for _, yaml := range made {
		decoded, err := decode(yaml)
		if err != nil {
			return nil, fmt.Errorf("%w in:\n%s", err, yaml)
		}
		objects = append(objects, decoded)
	}
	return objects, nil
}

// forEachOverlay runs a test on the objects of each overlay.
func forEachOverlay(t *testing.T, check func(t *testing.T, objects []object)) {
	for _, dir := range overlays {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			objects, err := render(dir)
			if err != nil {
				t.Fatal(err)
			}
			check(t, objects)
		})
	}
}

// ofType returns the objects of type T.
func ofType[T runtime.Object](objects []object) []T {
	var found []T
	for _, each := range objects {
		if typed, ok := each.typed.(T); ok {
			found = append(found, typed)
		}
	}
	return found
}

// named returns the object of type T with that name, or nothing.
func named[T runtime.Object](objects []object, name string) (found T, ok bool) {
	for _, typed := range ofType[T](objects) {
		if accessor, err := meta.Accessor(typed); err == nil && accessor.GetName() == name {
			return typed, true
		}
	}
	return found, false
}

func report(t *testing.T, id string, problems []string) {
	t.Helper()
	for _, problem := range problems {
		t.Errorf("%s: %s", id, problem)
	}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}
