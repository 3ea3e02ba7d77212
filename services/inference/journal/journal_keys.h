#pragma once

#include <string>
#include <string_view>
#include <utility>

namespace runnel::inference {

// The names of the keys in the store. Those of one generation have its id as hash tag, so a cluster keeps them on one
// node. `prefix` (--log_prefix) keeps deployments apart.
//
//   P:{gen_x}:e    stream of records, see stored_stream.h
//   P:{gen_x}:d    the finished log (finished_log.h), in place of the stream
//   P:{gen_x}:m    stored_meta.h
//   P:i:<name>     the generation that a request_id names; `name` is ValueCipher::NameOf principal and request_id
//   P:lease:<id prefix>  run id and address of a living replica, expires unless it is renewed
//   P:own:<id prefix>    set of the ids that a replica runs
//   P:replicas     hash from id prefix to address
//   P:format       which format of keys and which encryption the deployment has, see log_format.h
class JournalKeys {
 public:
  explicit JournalKeys(std::string prefix) : prefix_(std::move(prefix)) {}

  std::string Stream(std::string_view id) const { return OfGeneration(id, ":e"); }
  std::string Finished(std::string_view id) const { return OfGeneration(id, ":d"); }
  std::string Meta(std::string_view id) const { return OfGeneration(id, ":m"); }
  std::string Claim(std::string_view name) const { return Other(":i:", name); }
  std::string Lease(std::string_view id_prefix) const { return Other(":lease:", id_prefix); }
  std::string Running(std::string_view id_prefix) const { return Other(":own:", id_prefix); }
  std::string Replicas() const { return prefix_ + ":replicas"; }
  std::string Format() const { return prefix_ + ":format"; }

 private:
  std::string OfGeneration(std::string_view id, std::string_view which) const {
    return (prefix_ + ":{").append(id).append("}").append(which);
  }
  std::string Other(std::string_view which, std::string_view name) const {
    return std::string(prefix_).append(which).append(name);
  }

  const std::string prefix_;
};

}  // namespace runnel::inference
