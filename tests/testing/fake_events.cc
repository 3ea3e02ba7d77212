#include "tests/testing/fake_events.h"

#include <zlib.h>

namespace runnel::testing {

std::string FakeId(char letter) { return "gen_" + std::string(26, letter); }

v1::GenerationEvent StartedEvent(uint64_t seq, const std::string& model) {
  v1::GenerationEvent event;
  event.set_seq(seq);
  event.mutable_started()->set_model(model);
  event.mutable_started()->set_prompt_tokens(9);
  event.mutable_started()->mutable_created_at()->set_seconds(1'795'410'000);
  return event;
}

v1::GenerationEvent DeltaEvent(uint64_t seq, const std::string& text, uint32_t choice) {
  v1::GenerationEvent event;
  event.set_seq(seq);
  event.set_elapsed_us(seq * 1000 + 999);
  event.mutable_delta()->set_choice(choice);
  event.mutable_delta()->set_text(text);
  event.mutable_delta()->set_tokens(1);
  return event;
}

v1::GenerationEvent MergedEvent(uint64_t first_seq, uint64_t seq, const std::string& text) {
  v1::GenerationEvent event = DeltaEvent(seq, text);
  event.set_first_seq(first_seq);
  event.mutable_delta()->set_tokens(static_cast<uint32_t>(seq - first_seq + 1));
  return event;
}

v1::GenerationEvent DoneEvent(uint64_t seq, const std::string& text) {
  v1::GenerationEvent event;
  event.set_seq(seq);
  event.set_elapsed_us(seq * 1000);
  auto* done = event.mutable_done();
  done->set_event_count(seq);
  auto* end = done->add_choices();
  end->set_finish_reason(v1::FINISH_REASON_STOP);
  end->set_text_bytes(text.size());
  const auto crc = crc32_z(0, reinterpret_cast<const Bytef*>(text.data()), text.size());
  end->set_text_crc32(static_cast<uint32_t>(crc));
  done->mutable_usage()->set_prompt_tokens(9);
  done->mutable_usage()->set_completion_tokens(static_cast<uint32_t>(seq - 2));
  return event;
}

v1::GenerationEvent FailedEvent(uint64_t seq, const std::string& code) {
  v1::GenerationEvent event;
  event.set_seq(seq);
  event.mutable_failed()->set_code(code);
  event.mutable_failed()->set_message("it \"broke\"");
  event.mutable_failed()->set_retryable(true);
  return event;
}

}  // namespace runnel::testing
