#include "cli/failure.h"

#include <google/protobuf/unknown_field_set.h>

#include <vector>

namespace postkeeper::cli {
namespace {

// The length-delimited fields with this number. google.rpc's protos are not packaged, and of all they say we need two
// fields; so the details are read as what they are on the wire.
std::vector<std::string> Fields(const std::string& bytes, int number) {
  std::vector<std::string> values;
  google::protobuf::UnknownFieldSet fields;
  if (!fields.ParseFromString(bytes)) return values;
  for (int i = 0; i < fields.field_count(); ++i) {
    const google::protobuf::UnknownField& field = fields.field(i);
    if (field.number() == number && field.type() == google::protobuf::UnknownField::TYPE_LENGTH_DELIMITED) {
      values.push_back(field.length_delimited());
    }
  }
  return values;
}

std::string First(const std::string& bytes, int number) {
  const std::vector<std::string> values = Fields(bytes, number);
  return values.empty() ? "" : values.front();
}

}  // namespace

ErrorInfo GetErrorInfo(const grpc::Status& status) {
  ErrorInfo info;
  // google.rpc.Status.details = 3; Any: type_url = 1, value = 2; ErrorInfo: reason = 1, domain = 2, metadata = 3.
  for (const std::string& detail : Fields(status.error_details(), 3)) {
    if (First(detail, 1) != "type.googleapis.com/google.rpc.ErrorInfo") continue;
    const std::string value = First(detail, 2);
    if (First(value, 2) != "postkeeper") continue;
    info.reason = First(value, 1);
    for (const std::string& entry : Fields(value, 3)) info.metadata[First(entry, 1)] = First(entry, 2);
  }
  return info;
}

ExitCode ExitCodeOf(const grpc::Status& status) {
  switch (status.error_code()) {
    case grpc::StatusCode::OK:
      return ExitCode::kDone;
    case grpc::StatusCode::NOT_FOUND:
      return ExitCode::kNotFound;
    case grpc::StatusCode::UNAVAILABLE:
      return ExitCode::kUnreachable;
    default:
      return ExitCode::kFailed;
  }
}

bool IsTransient(const grpc::Status& status) {
  const bool is_of_service = !GetErrorInfo(status).reason.empty();
  switch (status.error_code()) {
    case grpc::StatusCode::UNAVAILABLE:
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
      return true;
    // What gRPC says when a connection breaks in the middle of a stream.
    case grpc::StatusCode::CANCELLED:
    case grpc::StatusCode::INTERNAL:
    case grpc::StatusCode::UNKNOWN:
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return !is_of_service;
    default:
      return false;
  }
}

}  // namespace postkeeper::cli
