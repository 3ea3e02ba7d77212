#pragma once

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "services/base/mutex.h"

namespace runnel::base {

class Metrics;

// Creates the text of the metrics on a separate thread, so that only scrapers wait for it. Scrapers that ask while a
// text is being created share the next one. Every text was created after the scraper asked, with one exception: if slow
// readers hold kMaxTexts of them, the newest is returned again.
class Exposition {
 public:
  using Text = std::shared_ptr<const std::string>;
  static constexpr size_t kMaxTexts = 4;

  // `metrics` must outlive it.
  explicit Exposition(Metrics* metrics);
  // Joins the thread. Pending requests are dropped.
  ~Exposition();

  // `done` is called on the thread of the exposition and must not block. Thread-safe.
  void Make(std::function<void(Text)> done) EXCLUDES(mu_);

 private:
  void Run() EXCLUDES(mu_);
  Text NewText();

  Metrics* const metrics_;
  // Confined to the thread.
  std::array<std::weak_ptr<const std::string>, kMaxTexts> texts_;  // those that are still in use
  std::weak_ptr<const std::string> newest_;

  Mutex mu_;
  CondVar wake_;
  bool stopped_ GUARDED_BY(mu_) = false;
  std::vector<std::function<void(Text)>> waiting_ GUARDED_BY(mu_);

  std::jthread thread_;
};

}  // namespace runnel::base
