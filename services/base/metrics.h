#pragma once

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "services/base/mutex.h"

namespace runnel::base {

using Labels = std::map<std::string, std::string>;

// The metrics of one process: a prometheus-cpp registry with shorter calls. Names start with runnel_ and have base
// units; counters end in _total. The returned objects live as long as the Metrics. Thread-safe.
class Metrics {
 public:
  Metrics();
  ~Metrics();

  // Each returns the same object for the same name and labels.
  prometheus::Counter& Counter(const std::string& name, const std::string& help, const Labels& labels = {});
  prometheus::Gauge& Gauge(const std::string& name, const std::string& help, const Labels& labels = {});
  prometheus::Histogram& Histogram(const std::string& name, const std::string& help, std::vector<double> bounds,
                                   const Labels& labels = {});

  // `update` runs before each exposition, on the exposition's thread: for gauges that are cheaper to compute than to
  // maintain. The objects that it uses must outlive the last Expose().
  void BeforeExpose(std::function<void()> update) EXCLUDES(mu_);

  // The text exposition format, version 0.0.4.
  std::string Expose() EXCLUDES(mu_);

 private:
  prometheus::Registry registry_;
  Mutex mu_;
  std::vector<std::function<void()>> updates_ GUARDED_BY(mu_);
};

// Bucket bounds in seconds: the ones that OpenTelemetry recommends for generative models, with finer ones for small
// models.
std::vector<double> FirstTokenBuckets();
std::vector<double> PerTokenBuckets();
std::vector<double> RequestBuckets();

}  // namespace runnel::base
