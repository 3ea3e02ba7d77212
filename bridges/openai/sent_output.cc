#include "bridges/openai/sent_output.h"

#include <algorithm>
#include <string>
#include <utility>

namespace runnel::openai {
namespace {

// More than a generation can have, so that a faulty service cannot exhaust the memory.
constexpr size_t kMaxParts = 64 * 1024;

// FNV-1a. Only faults are to be found, not forgeries.
constexpr uint64_t kHashOfNothing = 0xcbf29ce484222325;
uint64_t Hash(uint64_t hash, std::string_view text) {
  for (const char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  return hash;
}
uint64_t HashOfCall(std::string_view id, std::string_view name) {
  return Hash(Hash(Hash(kHashOfNothing, id), std::string_view("\0", 1)), name);
}

// The parts of a choice, also if there is a single text part.
std::vector<v1::PartText> PartsOf(const v1::ChoiceText& choice) {
  if (!choice.parts().empty() || choice.text().empty()) return {choice.parts().begin(), choice.parts().end()};
  std::vector<v1::PartText> single(1);
  single.front().set_content(choice.text());
  return single;
}

v1::Delta DeltaOf(uint32_t choice, const v1::PartText& part, uint64_t sent_bytes, bool opened) {
  v1::Delta delta;
  delta.set_choice(choice);
  delta.set_part(part.index());
  delta.set_kind(part.kind());
  std::string rest = part.content().substr(sent_bytes);
  part.kind() == v1::PART_KIND_TEXT ? delta.set_text(std::move(rest)) : delta.set_content(std::move(rest));
  if (opened || part.kind() != v1::PART_KIND_TOOL_CALL) return delta;
  delta.mutable_call()->set_id(part.id());
  delta.mutable_call()->set_name(part.name());
  return delta;
}

}  // namespace

size_t SentOutput::Find(uint32_t choice, uint32_t index) const {
  // The last parts are those that grow.
  for (size_t i = parts_.size(); i > 0; --i) {
    if (parts_[i - 1].choice == choice && parts_[i - 1].index == index) return i - 1;
  }
  return parts_.size();
}

void SentOutput::Add(const v1::Delta& delta) {
  logprobs_ |= !delta.logprobs().empty();
  const std::string& content = delta.kind() == v1::PART_KIND_TEXT ? delta.text() : delta.content();
  size_t at = Find(delta.choice(), delta.part());
  if (at == parts_.size()) {
    if (at >= kMaxParts) return;
    const uint64_t hash = delta.has_call() ? HashOfCall(delta.call().id(), delta.call().name()) : kHashOfNothing;
    parts_.push_back({delta.choice(), delta.part(), delta.kind(), 0, hash});
  }
  parts_[at].bytes += content.size();
  parts_[at].hash = Hash(parts_[at].hash, content);
}

std::optional<std::vector<v1::Delta>> SentOutput::RestOf(const v1::Gap& gap) const {
  std::vector<v1::Delta> rest;
  for (const v1::ChoiceText& choice : gap.snapshot()) {
    size_t found = 0;
    for (const v1::PartText& part : PartsOf(choice)) {
      const size_t at = Find(choice.index(), part.index());
      const Part* sent = at < parts_.size() ? &parts_[at] : nullptr;
      if (sent != nullptr) {
        const bool call = part.kind() == v1::PART_KIND_TOOL_CALL;
        const uint64_t hash = call ? HashOfCall(part.id(), part.name()) : kHashOfNothing;
        const std::string_view begin = std::string_view(part.content()).substr(0, sent->bytes);
        if (part.kind() != sent->kind || begin.size() < sent->bytes || Hash(hash, begin) != sent->hash) {
          return std::nullopt;
        }
        if (sent->bytes > 0 || sent->kind != v1::PART_KIND_TEXT) ++found;
      }
      const uint64_t sent_bytes = sent == nullptr ? 0 : sent->bytes;
      if (sent != nullptr && part.content().size() == sent_bytes) continue;
      rest.push_back(DeltaOf(choice.index(), part, sent_bytes, sent != nullptr));
    }
    // An empty text leaves no part.
    const auto all = std::count_if(parts_.begin(), parts_.end(), [&](const Part& part) {
      return part.choice == choice.index() && (part.bytes > 0 || part.kind != v1::PART_KIND_TEXT);
    });
    if (found < static_cast<size_t>(all)) return std::nullopt;
  }
  if (logprobs_ && !rest.empty()) return std::nullopt;
  return rest;
}

}  // namespace runnel::openai
