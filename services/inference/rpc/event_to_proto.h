#pragma once

#include "absl/time/time.h"
#include "runnel/v1/inference.pb.h"
#include "services/inference/generation/event.h"

namespace runnel::inference {

// Sets everything but generation_id.
void EventToProto(Event event, v1::GenerationEvent* proto);

// Parts of events that other messages have too.
void ChoiceTextToProto(ChoiceText choice, v1::ChoiceText* proto);
void UsageToProto(const Usage& usage, v1::Usage* proto);
void DoneToProto(const Done& done, v1::Done* proto);
void FailedToProto(const Failed& failed, v1::Failed* proto);
void TimeToProto(absl::Time time, google::protobuf::Timestamp* proto);

}  // namespace runnel::inference
