#include "services/base/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace runnel::base {
namespace {

using testing::HasSubstr;

TEST(Metrics, ExposesWhatWasCounted) {
  Metrics metrics;
  metrics.Counter("runnel_things_total", "Things.", {{"kind", "a"}}).Increment(3);
  metrics.Gauge("runnel_level", "Level.").Set(2);
  metrics.Histogram("runnel_wait_seconds", "Wait.", {0.1, 1}).Observe(0.5);
  const std::string text = metrics.Expose();
  EXPECT_THAT(text, HasSubstr("# TYPE runnel_things_total counter"));
  EXPECT_THAT(text, HasSubstr("runnel_things_total{kind=\"a\"} 3"));
  EXPECT_THAT(text, HasSubstr("runnel_level 2"));
  EXPECT_THAT(text, HasSubstr("runnel_wait_seconds_bucket{le=\"1\"} 1"));
}

TEST(Metrics, SameNameAndLabelsAreOneObject) {
  Metrics metrics;
  EXPECT_EQ(&metrics.Counter("runnel_a_total", "A."), &metrics.Counter("runnel_a_total", "A."));
  EXPECT_NE(&metrics.Counter("runnel_a_total", "A.", {{"x", "1"}}), &metrics.Counter("runnel_a_total", "A."));
}

TEST(Metrics, UpdatesGaugesBeforeExposing) {
  Metrics metrics;
  auto& gauge = metrics.Gauge("runnel_now", "Now.");
  int calls = 0;
  metrics.BeforeExpose([&] { gauge.Set(++calls); });
  EXPECT_THAT(metrics.Expose(), HasSubstr("runnel_now 1"));
  EXPECT_THAT(metrics.Expose(), HasSubstr("runnel_now 2"));
}

}  // namespace
}  // namespace runnel::base
