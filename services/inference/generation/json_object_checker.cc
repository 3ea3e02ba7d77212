#include "services/inference/generation/json_object_checker.h"

namespace runnel::inference {
namespace {

bool IsBlank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsHex(char c) { return IsDigit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }
bool IsPlain(char c) { return c != '"' && c != '\\' && static_cast<unsigned char>(c) >= 0x20; }

}  // namespace

void JsonObjectChecker::Add(std::string_view text) {
  for (const char c : text) {
    if (state_ == State::kString && IsPlain(c)) continue;
    if (state_ == State::kInvalid) return;
    state_ = Next(c);
  }
}

JsonObjectChecker::State JsonObjectChecker::Next(char c) {
  switch (state_) {
    case State::kStart:
      if (IsBlank(c)) return state_;
      return c == '{' ? Open(true) : State::kInvalid;
    case State::kEnd:
      return IsBlank(c) ? state_ : State::kInvalid;
    case State::kFirstKey:
      if (c == '}') return Close(true);
      [[fallthrough]];
    case State::kKey:
      if (IsBlank(c)) return state_;
      in_key_ = true;
      return c == '"' ? State::kString : State::kInvalid;
    case State::kColon:
      if (IsBlank(c)) return state_;
      return c == ':' ? State::kValue : State::kInvalid;
    case State::kFirstValue:
      if (c == ']') return Close(false);
      [[fallthrough]];
    case State::kValue:
      return IsBlank(c) ? state_ : BeginValue(c);
    case State::kAfterValue:
      return AfterValue(c);
    case State::kString:
      if (c == '"') return EndString();
      return c == '\\' ? State::kEscape : State::kInvalid;
    case State::kEscape:
      hex_left_ = 4;
      if (c == 'u') return State::kHex;
      return std::string_view("\"\\/bfnrt").find(c) != std::string_view::npos ? State::kString : State::kInvalid;
    case State::kHex:
      if (!IsHex(c)) return State::kInvalid;
      return --hex_left_ == 0 ? State::kString : State::kHex;
    case State::kMinus:
      return BeginNumber(c);
    case State::kZero:
    case State::kInteger:
      if (c == '.') return State::kPoint;
      if (c == 'e' || c == 'E') return State::kExponent;
      if (IsDigit(c)) return state_ == State::kInteger ? state_ : State::kInvalid;
      return AfterValue(c);
    case State::kPoint:
      return IsDigit(c) ? State::kFraction : State::kInvalid;
    case State::kFraction:
      if (c == 'e' || c == 'E') return State::kExponent;
      return IsDigit(c) ? state_ : AfterValue(c);
    case State::kExponent:
      if (c == '+' || c == '-') return State::kExponentSign;
      [[fallthrough]];
    case State::kExponentSign:
      return IsDigit(c) ? State::kExponentDigits : State::kInvalid;
    case State::kExponentDigits:
      return IsDigit(c) ? state_ : AfterValue(c);
    case State::kLiteral:
      if (c != *literal_) return State::kInvalid;
      return *++literal_ == '\0' ? State::kAfterValue : State::kLiteral;
    case State::kInvalid:
      return state_;
  }
  return State::kInvalid;
}

JsonObjectChecker::State JsonObjectChecker::BeginValue(char c) {
  switch (c) {
    case '{':
      return Open(true);
    case '[':
      return Open(false);
    case '"':
      in_key_ = false;
      return State::kString;
    case 't':
      literal_ = "rue";
      return State::kLiteral;
    case 'f':
      literal_ = "alse";
      return State::kLiteral;
    case 'n':
      literal_ = "ull";
      return State::kLiteral;
    case '-':
      return State::kMinus;
    default:
      return BeginNumber(c);
  }
}

JsonObjectChecker::State JsonObjectChecker::BeginNumber(char c) {
  if (!IsDigit(c)) return State::kInvalid;
  return c == '0' ? State::kZero : State::kInteger;
}

JsonObjectChecker::State JsonObjectChecker::Open(bool object) {
  if (depth_ == max_depth_) return State::kInvalid;
  is_object_[depth_++] = object;
  return object ? State::kFirstKey : State::kFirstValue;
}

JsonObjectChecker::State JsonObjectChecker::Close(bool object) {
  if (is_object_[depth_ - 1u] != object) return State::kInvalid;
  return --depth_ == 0 ? State::kEnd : State::kAfterValue;
}

JsonObjectChecker::State JsonObjectChecker::AfterValue(char c) {
  if (IsBlank(c)) return State::kAfterValue;
  if (c == '}' || c == ']') return Close(c == '}');
  if (c != ',') return State::kInvalid;
  return is_object_[depth_ - 1u] ? State::kKey : State::kValue;
}

}  // namespace runnel::inference
