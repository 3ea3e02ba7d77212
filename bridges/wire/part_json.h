#pragma once

#include <google/protobuf/repeated_ptr_field.h>

#include <string>
#include <string_view>

#include "runnel/v1/inference.pb.h"

// The parts of a choice as JSON: see "Parts" in inference.proto. A choice of one text part has none of these keys. All
// functions append to `out`.
namespace runnel::bridge {

// `text`, `reasoning`, `tool_call` or `refusal`; `unknown` for a kind that a newer service sends.
std::string_view PartKindName(v1::PartKind kind);

// The part of a delta and its output. The keys of a call are only in the delta that opens it. Every delta has a text,
// because clients that do not know parts append it.
//   first text part    ,"text":".."
//   further text part  ,"part":2,"text":".."
//   other kinds        ,"part":1,"kind":"tool_call","text":"","content":"..","id":"..","name":".."
void AppendDeltaOutput(const v1::Delta& delta, std::string* out);

// ,"parts":[{"index","kind","bytes","crc32"}], and "id","name","complete" of a tool call
void AppendPartEnds(const google::protobuf::RepeatedPtrField<v1::PartEnd>& parts, std::string* out);

// ,"parts":[{"index","kind","content"}], and "id","name" of a tool call. With `end`, which is null while the choice
// goes on, a tool call has "complete" as well.
void AppendPartTexts(const google::protobuf::RepeatedPtrField<v1::PartText>& parts, std::string* out);
void AppendPartTexts(const google::protobuf::RepeatedPtrField<v1::PartText>& parts, const v1::ChoiceEnd* end,
                     std::string* out);

// ,"parts":[{"choice","index","kind","bytes"}], and "id","name" of a tool call
void AppendOpenedParts(const google::protobuf::RepeatedPtrField<v1::OpenedPart>& parts, std::string* out);

}  // namespace runnel::bridge
