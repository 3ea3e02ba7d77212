#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/time/time.h"
#include "runnel/v1/inference.pb.h"
#include "services/inference/generation/event.h"

namespace runnel::inference {

// Sets everything but generation_id. `epoch`: of the log, when the event was read.
void EventToProto(Event event, uint32_t epoch, v1::GenerationEvent* proto);

// About what an event takes on the wire.
size_t WireBytes(const Event& event);

// Parts of events that other messages have too.
void ChoiceTextToProto(ChoiceText choice, v1::ChoiceText* proto);
void OpenedPartToProto(OpenedPart part, v1::OpenedPart* proto);
void UsageToProto(const Usage& usage, v1::Usage* proto);
void DoneToProto(const Done& done, v1::Done* proto);
void FailedToProto(const Failed& failed, v1::Failed* proto);
void TimeToProto(absl::Time time, google::protobuf::Timestamp* proto);

}  // namespace runnel::inference
