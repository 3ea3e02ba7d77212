#include "services/base/metrics.h"

#include <prometheus/text_serializer.h>

#include <utility>

namespace runnel::base {

Metrics::Metrics() : registry_(prometheus::Registry::InsertBehavior::Merge) {}
Metrics::~Metrics() = default;

prometheus::Counter& Metrics::Counter(const std::string& name, const std::string& help, const Labels& labels) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry_).Add(labels);
}

prometheus::Gauge& Metrics::Gauge(const std::string& name, const std::string& help, const Labels& labels) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry_).Add(labels);
}

prometheus::Histogram& Metrics::Histogram(const std::string& name, const std::string& help, std::vector<double> bounds,
                                          const Labels& labels) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry_).Add(labels, std::move(bounds));
}

void Metrics::BeforeExpose(std::function<void()> update) {
  MutexLock lock(&mu_);
  updates_.push_back(std::move(update));
}

std::string Metrics::Expose() {
  {
    MutexLock lock(&mu_);
    for (const auto& update : updates_) update();
  }
  return prometheus::TextSerializer().Serialize(registry_.Collect());
}

std::vector<double> FirstTokenBuckets() {
  return {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10, 30, 60};
}
std::vector<double> PerTokenBuckets() {
  return {.001, .0025, .005, .01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5};
}
std::vector<double> RequestBuckets() { return {.1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600}; }

}  // namespace runnel::base
