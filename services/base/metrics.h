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

// The metrics of one process: prometheus-cpp's registry with short calls. Names are runnel_*, base units, counters end
// in _total. Each object returned lives as long as the Metrics. Thread-safe.
class Metrics {
 public:
  Metrics();
  ~Metrics();

  // The same name and labels give the same object.
  prometheus::Counter& Counter(const std::string& name, const std::string& help, const Labels& labels = {});
  prometheus::Gauge& Gauge(const std::string& name, const std::string& help, const Labels& labels = {});
  prometheus::Histogram& Histogram(const std::string& name, const std::string& help, std::vector<double> bounds,
                                   const Labels& labels = {});

  // `update` runs before each exposition, on the admin thread: for gauges that are cheaper to read than to keep.
  // What it uses must outlive the last Expose().
  void BeforeExpose(std::function<void()> update) EXCLUDES(mu_);

  // The text exposition format, version 0.0.4.
  std::string Expose() EXCLUDES(mu_);

 private:
  prometheus::Registry registry_;
  Mutex mu_;
  std::vector<std::function<void()>> updates_ GUARDED_BY(mu_);
};

// Bounds in seconds, those that OpenTelemetry advises for generative models with finer ones below for small models.
std::vector<double> FirstTokenBuckets();
std::vector<double> PerTokenBuckets();
std::vector<double> RequestBuckets();

}  // namespace runnel::base
