#include "services/inference/engines/upstream/upstream_stream_parser.h"

#include "absl/strings/str_cat.h"

namespace runnel::inference {

absl::Status UpstreamStreamParser::Add(std::string_view bytes, const OnEvent& on_event) {
  while (status_.ok() && !bytes.empty()) {
    if (after_cr_ && bytes.front() == '\n') bytes.remove_prefix(1);
    after_cr_ = false;
    const size_t end = bytes.find_first_of("\r\n");
    const std::string_view part = bytes.substr(0, end);
    if (line_.size() + part.size() > limits_.max_line_bytes) {
      status_ = absl::ResourceExhaustedError(absl::StrCat("a line of more than ", limits_.max_line_bytes, " bytes"));
      break;
    }
    if (end == std::string_view::npos) {
      line_.append(part);
      break;
    }
    after_cr_ = bytes[end] == '\r';
    bytes.remove_prefix(end + 1);
    // Most lines are complete and need no copy.
    bool more = true;
    if (line_.empty()) {
      more = TakeLine(part, on_event);
    } else {
      line_.append(part);
      more = TakeLine(line_, on_event);
      line_.clear();
    }
    if (!more) break;
  }
  return status_;
}

std::string_view UpstreamStreamParser::SkipByteOrderMark(std::string_view line) {
  if (first_line_ && line.starts_with("\xEF\xBB\xBF")) line.remove_prefix(3);
  first_line_ = false;
  return line;
}

bool UpstreamStreamParser::TakeLine(std::string_view line, const OnEvent& on_event) {
  line = SkipByteOrderMark(line);
  if (line.empty()) return Dispatch(on_event);
  const size_t colon = line.find(':');
  const std::string_view field = line.substr(0, colon);
  std::string_view value = colon == std::string_view::npos ? "" : line.substr(colon + 1);
  if (value.starts_with(' ')) value.remove_prefix(1);
  if (field == "data") return AppendData(value);
  if (field == "error") {
    name_ = "error";
    return AppendData(value);
  }
  // Only the name "error" matters, so a long one need not be kept.
  if (field == "event") name_ = value.substr(0, 64);
  return true;
}

bool UpstreamStreamParser::AppendData(std::string_view value) {
  if (data_.size() + value.size() + 1 > limits_.max_event_bytes) {
    status_ = absl::ResourceExhaustedError(absl::StrCat("an event of more than ", limits_.max_event_bytes, " bytes"));
    return false;
  }
  if (has_data_) data_.push_back('\n');
  data_.append(value);
  has_data_ = true;
  return true;
}

bool UpstreamStreamParser::Dispatch(const OnEvent& on_event) {
  const bool more = !has_data_ || on_event({name_, data_});
  name_.clear();
  data_.clear();
  has_data_ = false;
  return more;
}

}  // namespace runnel::inference
