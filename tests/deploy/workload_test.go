package deploy

import (
	"fmt"
	"path"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// One of our Deployments with the flags that its program will get.
type workload struct {
	*appsv1.Deployment
	component string // inference, sse or ws
	flags     map[string]string
}

func (w *workload) pod() *corev1.PodSpec         { return &w.Spec.Template.Spec }
func (w *workload) podLabels() map[string]string { return w.Spec.Template.Labels }
func (w *workload) program() string              { return "runnel-" + w.component }
func (w *workload) container() *corev1.Container { return &w.pod().Containers[0] }
func (w *workload) containers() []corev1.Container {
	return append(append([]corev1.Container{}, w.pod().InitContainers...), w.pod().Containers...)
}

// workloads returns the three Deployments of an overlay.
func workloads(objects []object) ([]*workload, error) {
	var found []*workload
	for _, deployment := range ofType[*appsv1.Deployment](objects) {
		w := &workload{Deployment: deployment, component: deployment.Spec.Template.Labels["app.kubernetes.io/component"]}
		var err error
		if w.flags, err = readFlags(w, objects); err != nil {
			return nil, fmt.Errorf("%s: %w", deployment.Name, err)
		}
		found = append(found, w)
	}
	if len(found) != 3 {
		return nil, fmt.Errorf("%d Deployments, want 3", len(found))
	}
	return found, nil
}

// readFlags follows --flagfile into the ConfigMap that is mounted there, and $(NAME) into the ConfigMap that sets the
// variable. Like in the program, the later value wins.
func readFlags(w *workload, objects []object) (map[string]string, error) {
	flags := map[string]string{}
	for _, arg := range w.container().Args {
		arg, err := expand(arg, w, objects)
		if err != nil {
			return nil, err
		}
		files, isFile := strings.CutPrefix(arg, "--flagfile=")
		if !isFile {
			if err := addFlag(flags, arg); err != nil {
				return nil, err
			}
			continue
		}
		for _, file := range strings.Split(files, ",") {
			content, err := mountedFile(w, objects, file)
			if err != nil {
				return nil, err
			}
			for _, line := range strings.Split(content, "\n") {
				if line == "" || strings.HasPrefix(line, "#") {
					continue
				}
				if err := addFlag(flags, line); err != nil {
					return nil, fmt.Errorf("%s: %w", file, err)
				}
			}
		}
	}
	return flags, nil
}

// expand replaces the variables in an argument that a ConfigMap sets; those that only a cluster knows stay.
func expand(arg string, w *workload, objects []object) (string, error) {
	for _, variable := range w.container().Env {
		if variable.ValueFrom == nil || variable.ValueFrom.ConfigMapKeyRef == nil {
			continue
		}
		key := variable.ValueFrom.ConfigMapKeyRef
		configMap, ok := named[*corev1.ConfigMap](objects, key.Name)
		if !ok || configMap.Data[key.Key] == "" {
			return "", fmt.Errorf("ConfigMap %s has no %s", key.Name, key.Key)
		}
		arg = strings.ReplaceAll(arg, "$("+variable.Name+")", configMap.Data[key.Key])
	}
	return arg, nil
}

func addFlag(flags map[string]string, line string) error {
	name, value, hasValue := strings.Cut(line, "=")
	if !strings.HasPrefix(name, "--") || strings.ContainsAny(line, " \t") {
		return fmt.Errorf("%q is not a flag", line)
	}
	if !hasValue {
		value = "true"
	}
	flags[strings.TrimPrefix(name, "--")] = value
	return nil
}

// mountOf returns the volume that is mounted at the folder of a file.
func mountOf(w *workload, file string) (corev1.Volume, error) {
	for _, mount := range w.container().VolumeMounts {
		if mount.MountPath != path.Dir(file) {
			continue
		}
		for _, volume := range w.pod().Volumes {
			if volume.Name == mount.Name {
				return volume, nil
			}
		}
	}
	return corev1.Volume{}, fmt.Errorf("nothing is mounted at the folder of %s", file)
}

func mountedFile(w *workload, objects []object, file string) (string, error) {
	volume, err := mountOf(w, file)
	if err != nil {
		return "", err
	}
	if volume.ConfigMap == nil {
		return "", fmt.Errorf("%s is in no ConfigMap", file)
	}
	configMap, ok := named[*corev1.ConfigMap](objects, volume.ConfigMap.Name)
	if !ok {
		return "", fmt.Errorf("there is no ConfigMap %s", volume.ConfigMap.Name)
	}
	content, ok := configMap.Data[path.Base(file)]
	if !ok {
		return "", fmt.Errorf("ConfigMap %s has no %s", configMap.Name, path.Base(file))
	}
	return content, nil
}

// duration returns the value of a duration flag. A flag that is not set is an error, because defaults may change.
func (w *workload) duration(flag string) (time.Duration, error) {
	value, ok := w.flags[flag]
	if !ok {
		return 0, fmt.Errorf("--%s is not set", flag)
	}
	return time.ParseDuration(value)
}

// flagPort returns the port of a host:port flag.
func (w *workload) flagPort(flag string) string {
	return w.flags[flag][strings.LastIndex(w.flags[flag], ":")+1:]
}

// port looks up a name or number in the ports that the container declares.
func (w *workload) port(want intstr.IntOrString) (int32, error) {
	for _, port := range w.container().Ports {
		if port.Name == want.StrVal || want.Type == intstr.Int && port.ContainerPort == want.IntVal {
			return port.ContainerPort, nil
		}
	}
	return 0, fmt.Errorf("the container has no port %s", want.String())
}
