#include "tests/testing/fake_parts.h"

#include <zlib.h>

#include <map>
#include <utility>

#include "tests/testing/fake_events.h"

namespace runnel::testing {
namespace {

uint32_t Crc(const std::string& text) {
  return static_cast<uint32_t>(crc32_z(0, reinterpret_cast<const Bytef*>(text.data()), text.size()));
}

}  // namespace

v1::GenerationEvent PartEvent(uint64_t seq, uint32_t part, v1::PartKind kind, const std::string& content) {
  v1::GenerationEvent event = DeltaEvent(seq, kind == v1::PART_KIND_TEXT ? content : "");
  event.mutable_delta()->set_part(part);
  event.mutable_delta()->set_kind(kind);
  if (kind != v1::PART_KIND_TEXT) event.mutable_delta()->set_content(content);
  return event;
}

v1::GenerationEvent CallEvent(uint64_t seq, uint32_t part, const std::string& id, const std::string& name,
                              const std::string& arguments) {
  v1::GenerationEvent event = PartEvent(seq, part, v1::PART_KIND_TOOL_CALL, arguments);
  event.mutable_delta()->mutable_call()->set_id(id);
  event.mutable_delta()->mutable_call()->set_name(name);
  return event;
}

std::vector<v1::GenerationEvent> EndedBy(std::vector<v1::GenerationEvent> log, v1::FinishReason reason) {
  std::map<uint32_t, v1::PartEnd> ends;
  std::map<uint32_t, std::string> contents;
  std::string text;
  for (const v1::GenerationEvent& event : log) {
    if (!event.has_delta()) continue;
    const v1::Delta& delta = event.delta();
    v1::PartEnd& end = ends[delta.part()];
    end.set_index(delta.part());
    end.set_kind(delta.kind());
    if (delta.has_call()) {
      end.set_id(delta.call().id());
      end.set_name(delta.call().name());
    }
    contents[delta.part()] += delta.text() + delta.content();
    text += delta.text();
  }
  v1::GenerationEvent done = DoneEvent(log.back().seq() + 1, text);
  v1::ChoiceEnd* choice = done.mutable_done()->mutable_choices(0);
  choice->set_finish_reason(reason);
  for (auto& [index, end] : ends) {
    end.set_bytes(contents[index].size());
    end.set_crc32(Crc(contents[index]));
    end.set_complete(end.kind() == v1::PART_KIND_TOOL_CALL && reason != v1::FINISH_REASON_LENGTH &&
                     reason != v1::FINISH_REASON_CANCELLED);
    if (ends.size() > 1 || end.kind() != v1::PART_KIND_TEXT) *choice->add_parts() = end;
  }
  log.push_back(done);
  return log;
}

v1::GenerationEvent Merge(v1::GenerationEvent first, const v1::GenerationEvent& second) {
  if (first.first_seq() == 0) first.set_first_seq(first.seq());
  first.set_seq(second.seq());
  v1::Delta* delta = first.mutable_delta();
  delta->mutable_text()->append(second.delta().text());
  delta->mutable_content()->append(second.delta().content());
  delta->set_tokens(delta->tokens() + second.delta().tokens());
  delta->mutable_logprobs()->MergeFrom(second.delta().logprobs());
  return first;
}

std::vector<std::vector<v1::GenerationEvent>> AllMerges(const std::vector<v1::GenerationEvent>& log) {
  std::vector<std::vector<v1::GenerationEvent>> merges = {{}};
  for (const v1::GenerationEvent& event : log) {
    const size_t before = merges.size();
    for (size_t i = 0; i < before; ++i) {
      std::vector<v1::GenerationEvent> merged = merges[i];
      merges[i].push_back(event);
      const bool one_part = !merged.empty() && merged.back().has_delta() && event.has_delta() &&
                            merged.back().delta().choice() == event.delta().choice() &&
                            merged.back().delta().part() == event.delta().part();
      if (!one_part) continue;
      merged.back() = Merge(merged.back(), event);
      merges.push_back(std::move(merged));
    }
  }
  return merges;
}

std::vector<v1::GenerationEvent> LogOfAllParts() {
  return EndedBy(
      {StartedEvent(), PartEvent(2, 0, v1::PART_KIND_REASONING, "H"), PartEvent(3, 0, v1::PART_KIND_REASONING, "m."),
       PartEvent(4, 1, v1::PART_KIND_TEXT, "Let me "), PartEvent(5, 1, v1::PART_KIND_TEXT, "see."),
       CallEvent(6, 2, "call_a", "get_weather"), PartEvent(7, 2, v1::PART_KIND_TOOL_CALL, "{\"city\":"),
       CallEvent(8, 3, "call_b", "get_time", "{"), PartEvent(9, 2, v1::PART_KIND_TOOL_CALL, "\"Oslo\"}"),
       PartEvent(10, 3, v1::PART_KIND_TOOL_CALL, "}")},
      v1::FINISH_REASON_TOOL_CALLS);
}

v1::Generation StateOf(const std::vector<v1::GenerationEvent>& log, const std::string& id) {
  v1::Generation generation;
  generation.set_id(id);
  generation.set_status(v1::GENERATION_STATUS_RUNNING);
  v1::ChoiceText* choice = generation.add_choices();
  std::map<uint32_t, v1::PartText> parts;
  for (const v1::GenerationEvent& event : log) {
    generation.set_last_seq(event.seq());
    if (event.has_started()) {
      generation.set_model(event.started().model());
      *generation.mutable_created_at() = event.started().created_at();
    }
    if (event.has_delta()) {
      const v1::Delta& delta = event.delta();
      v1::PartText& part = parts[delta.part()];
      part.set_index(delta.part());
      part.set_kind(delta.kind());
      if (delta.has_call()) {
        part.set_id(delta.call().id());
        part.set_name(delta.call().name());
      }
      part.mutable_content()->append(delta.text() + delta.content());
      choice->mutable_text()->append(delta.text());
    }
    if (event.has_done()) {
      generation.set_status(v1::GENERATION_STATUS_DONE);
      *generation.mutable_done() = event.done();
    }
    if (event.has_failed()) {
      generation.set_status(v1::GENERATION_STATUS_FAILED);
      *generation.mutable_failed() = event.failed();
    }
  }
  const bool plain = parts.empty() || (parts.size() == 1 && parts.begin()->second.kind() == v1::PART_KIND_TEXT);
  for (const auto& [index, part] : parts) {
    if (!plain) *choice->add_parts() = part;
  }
  return generation;
}

v1::LinkResponse AttachedAfterACall(const FakeInferenceService::Command& command, const std::string& generation_id) {
  const struct {
    v1::PartKind kind;
    const char* id;
    const char* name;
    uint64_t bytes;
  } opened[] = {{v1::PART_KIND_REASONING, "", "", 3},
                {v1::PART_KIND_TEXT, "", "", 11},
                {v1::PART_KIND_TOOL_CALL, "call_a", "get_weather", 8},
                {v1::PART_KIND_TOOL_CALL, "call_b", "get_time", 1}};
  v1::LinkResponse response;
  v1::LinkReply* reply = response.add_replies();
  reply->set_attachment(command.attachment());
  v1::LinkAttached* attached = reply->mutable_attached();
  attached->set_generation_id(generation_id);
  attached->set_status(v1::GENERATION_STATUS_RUNNING);
  attached->set_last_seq(9);
  attached->set_existing(true);
  for (const auto& each : opened) {
    v1::OpenedPart* part = attached->add_parts();
    part->set_index(static_cast<uint32_t>(attached->parts_size() - 1));
    part->set_kind(each.kind);
    part->set_id(each.id);
    part->set_name(each.name);
    part->set_bytes(each.bytes);
  }
  return response;
}

}  // namespace runnel::testing
