#include "service/unserved.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <google/protobuf/unknown_field_set.h>

#include <algorithm>
#include <string>
#include <vector>

#include "zkstore/errors.h"

namespace postkeeper {
namespace {

constexpr std::string_view kUnserved[] = {
    "postkeeper.v1.AdminService.CreateSubscription",
    "postkeeper.v1.AdminService.DeleteSubscription",
    "postkeeper.v1.AdminService.GetSubscription",
    "postkeeper.v1.AdminService.ListSubscriptions",
    "postkeeper.v1.AdminService.UpdateSubscription",
    "postkeeper.v1.DequeueRequest.at_most_once",
    "postkeeper.v1.Message.ordering_key",
    "postkeeper.v1.Message.priority",
    "postkeeper.v1.Message.time_to_live",
    "postkeeper.v1.NACK_KIND_REJECT",
    "postkeeper.v1.Queue.dead_letter_queue",
    "postkeeper.v1.Queue.max_attempts",
    "postkeeper.v1.SubscribeRequest.filter",
};
static_assert(std::is_sorted(std::begin(kUnserved), std::end(kUnserved)));

// A request nests far less deep; protobuf's parser stops at 100.
constexpr int kDepthMax = 100;

absl::Status FieldNotServed(const std::string& field, std::string_view why) {
  return MakeError(Reason::kFieldNotServed,
                   Cat(field, " ", why,
                       ". Leave it out, or use a newer postkeeperd. What this one does not serve: "
                       "postkeeper server (GetServerInfo)"),
                   {.field = field});
}

std::string Join(std::string_view path, std::string_view name) {
  return path.empty() ? std::string(name) : Cat(path, ".", name);
}

// Refuses what is wrong with the messages or enum numbers in the set fields of one message, recursively.
class Walk {
 public:
  absl::Status Look(const google::protobuf::Message& message, const std::string& path, int depth) const {
    if (absl::Status status = RefuseUnknownFields(message, path); !status.ok()) return status;
    std::vector<const google::protobuf::FieldDescriptor*> fields;
    message.GetReflection()->ListFields(message, &fields);
    for (const auto* field : fields) {
      const std::string name = Join(path, field->name());
      if (IsUnserved(field->full_name())) return FieldNotServed(name, "is not served by this build");
      if (absl::Status status = LookAtField(message, *field, name, depth); !status.ok()) return status;
    }
    return absl::OkStatus();
  }

 private:
  absl::Status LookAtField(const google::protobuf::Message& message, const google::protobuf::FieldDescriptor& field,
                           const std::string& name, int depth) const {
    using google::protobuf::FieldDescriptor;
    const google::protobuf::Reflection& reflection = *message.GetReflection();
    const bool is_message = field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE;
    const bool is_enum = field.cpp_type() == FieldDescriptor::CPPTYPE_ENUM;
    if ((!is_message && !is_enum) || field.is_map() || depth >= kDepthMax) return absl::OkStatus();
    const int size = field.is_repeated() ? reflection.FieldSize(message, &field) : 1;
    for (int i = 0; i < size; ++i) {
      absl::Status status;
      if (is_message) {
        const google::protobuf::Message& child = field.is_repeated() ? reflection.GetRepeatedMessage(message, &field, i)
                                                                     : reflection.GetMessage(message, &field);
        status = Look(child, field.is_repeated() ? Cat(name, "[", i, "]") : name, depth + 1);
      } else {
        status = LookAtEnum(*field.enum_type(),
                            field.is_repeated() ? reflection.GetRepeatedEnumValue(message, &field, i)
                                                : reflection.GetEnumValue(message, &field),
                            name);
      }
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  static absl::Status LookAtEnum(const google::protobuf::EnumDescriptor& type, int number, const std::string& name) {
    const google::protobuf::EnumValueDescriptor* value = type.FindValueByNumber(number);
    if (value == nullptr) return FieldNotServed(name, Cat("= ", number, " is not known to this build"));
    if (IsUnserved(value->full_name())) {
      return FieldNotServed(name, Cat("= ", value->name(), " is not served by this build"));
    }
    return absl::OkStatus();
  }
};

}  // namespace

std::span<const std::string_view> Unserved() { return kUnserved; }

bool IsUnserved(std::string_view full_proto_name) {
  return std::binary_search(std::begin(kUnserved), std::end(kUnserved), full_proto_name);
}

absl::Status MethodNotServed(std::string_view method) {
  return MakeError(Reason::kMethodNotServed,
                   Cat(method,
                       " is not served by this build. Use a newer postkeeperd. What this one does not serve: "
                       "postkeeper server (GetServerInfo)"),
                   {.resource = std::string(method)});
}

absl::Status RefuseUnserved(const google::protobuf::Message& message, std::string_view path) {
  return Walk().Look(message, std::string(path), 0);
}

absl::Status RefuseUnknownFields(const google::protobuf::Message& message, std::string_view path) {
  const google::protobuf::UnknownFieldSet& unknown = message.GetReflection()->GetUnknownFields(message);
  if (unknown.empty()) return absl::OkStatus();
  const std::string name = Join(path, Cat("field ", unknown.field(0).number()));
  return FieldNotServed(name, Cat("of ", message.GetTypeName(), " is not known to this build"));
}

}  // namespace postkeeper
