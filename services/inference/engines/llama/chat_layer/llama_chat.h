#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <vector>

// llama.cpp's chat layer, which its installation leaves out: renders the template of a model, and parses what the model
// writes into reasoning, text and tool calls. Without any type of llama.cpp or of a JSON library, so that it can be
// linked into programs that use other versions of these.
struct llama_model;

namespace llama_chat {

struct Call {
  std::string id;
  std::string name;
  std::string arguments;
};

struct Message {
  std::string role;  // system, developer, user, assistant or tool
  std::string content;
  std::string reasoning;
  std::vector<Call> calls;
  std::string call_id;  // of the tool's result
};

struct Tool {
  std::string name;
  std::string description;
  std::string parameters;  // a JSON Schema that is an object
};

enum class Choice { kNone, kAuto, kRequired };

struct Request {
  std::vector<Message> messages;
  std::vector<Tool> tools;     // that the prompt describes
  std::vector<Tool> callable;  // that the output may call, with the schemas to which it is held
  Choice choice = Choice::kAuto;
  bool parallel_calls = false;
  // The grammar holds all of the output, and not only from a call's beginning on.
  bool whole_output = false;
  bool thinking = true;  // if the template supports it
  // Of the text, in place of tools; empty: any text. A JSON object.
  std::string text_schema;
  std::map<std::string, std::string> template_arguments;  // JSON by name
};

// What is found in an output so far.
struct Output {
  std::string reasoning;
  std::string text;
  std::vector<Call> calls;
  size_t end = 0;                 // of the reasoning and the text in the output
  std::vector<size_t> call_ends;  // of each call in the output, as far as it goes
  // The output is whole: all of it was parsed, and nothing is missing.
  bool complete = false;
};

// The format of an output. Immutable: every method may be called on any thread.
class Format {
 public:
  virtual ~Format() = default;

  // Parses an output from its beginning, or a part of one. False if it does not have the format. Never throws. The
  // recursion is as deep as the JSON in the output, at most kMaxOutputDepth.
  virtual bool Parse(const std::string& output, Output* parsed) const noexcept = 0;
};

inline constexpr size_t kMaxOutputDepth = 200;

struct Prompt {
  std::string text;
  std::string generation_prompt;  // the end of `text` that is a part of the assistant's turn
  // In GBNF, with the rule `root`; empty: none. Of the generation prompt and the output together.
  std::string grammar;
  // Not empty: the grammar begins with the first of these in the output, outside reasoning, and without the generation
  // prompt.
  std::vector<std::string> triggers;
  std::string reasoning_begin;  // markers, without white space; empty if the template has none
  std::vector<std::string> reasoning_ends;
  std::vector<std::string> stops;             // that end the output, in addition to end tokens
  std::vector<std::string> preserved_tokens;  // control tokens whose text is a part of the output
  std::shared_ptr<const Format> format;
};

// The chat template of a model. Immutable: every method may be called on any thread.
class Template {
 public:
  virtual ~Template() = default;

  // Throws an exception derived from std::exception, for example if the template rejects the messages. The time and
  // the recursion depend on the request: the caller limits its size and depth.
  virtual Prompt Apply(const Request& request) const = 0;

  // It was written for tools. Otherwise they are described in the system message, and calls and results in messages.
  virtual bool has_tools() const = 0;
  virtual bool parallel_calls() const = 0;
  virtual bool has_reasoning() const = 0;
  // In Jinja, or the name of a built-in template.
  virtual std::string source() const = 0;
};

// `source`: in Jinja; empty: the template of the model. `model` may be null if there is a source; it is used here only.
// Throws an exception derived from std::exception if there is no template or it has an error.
std::unique_ptr<const Template> CreateTemplate(const llama_model* model, const std::string& source);

// The same for one of llama.cpp's built-in templates, by its name.
std::unique_ptr<const Template> CreateBuiltInTemplate(const llama_model* model, const std::string& name);

}  // namespace llama_chat
