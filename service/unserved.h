// What the public protos declare and this build does not serve: the one list.
#ifndef POSTKEEPER_SERVICE_UNSERVED_H_
#define POSTKEEPER_SERVICE_UNSERVED_H_

#include <span>
#include <string_view>

#include "absl/status/status.h"

namespace google::protobuf {
class Message;
}

namespace postkeeper {

// Full proto names of fields, enum values and RPCs, in alphabetical order: what GetServerInfo.unserved prints. To serve
// one of them, take it off this list and give it a test that shows its effect.
std::span<const std::string_view> Unserved();
bool IsUnserved(std::string_view full_proto_name);

// METHOD_NOT_SERVED, for the handler of an RPC of the list. `method` is e.g.
// postkeeper.v1.AdminService.CreateSubscription.
absl::Status MethodNotServed(std::string_view method);

// OK, or FIELD_NOT_SERVED naming the first field that is set and on the list, or unknown to this build (sent by a newer
// client), or an enum value of which that is true. Looks into submessages; google.protobuf types are taken as they
// are but for unknown fields. `path` stands before the name of the field: "messages[3]".
//
// Costs a walk over the message by reflection. Thread-safe.
absl::Status RefuseUnserved(const google::protobuf::Message& message, std::string_view path = "");

// OK, or FIELD_NOT_SERVED if `message` itself carries a field that this build does not know. Cheap.
absl::Status RefuseUnknownFields(const google::protobuf::Message& message, std::string_view path = "");

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_UNSERVED_H_
