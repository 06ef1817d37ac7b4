// Between protos and what the program shows.
#ifndef POSTKEEPER_CLI_PROTOS_H_
#define POSTKEEPER_CLI_PROTOS_H_

#include <google/protobuf/duration.pb.h>
#include <google/protobuf/timestamp.pb.h>

#include "cli/output.h"
#include "cli/text.h"
#include "postkeeper/v1/message.pb.h"

namespace postkeeper::cli {

google::protobuf::Duration ToProto(Duration duration);
Duration FromProto(const google::protobuf::Duration& duration);
google::protobuf::Timestamp ToProto(WallTime time);
WallTime FromProto(const google::protobuf::Timestamp& time);

// "body" or "body_base64", attributes, content type ... : the members of a message that are set.
void AddMessage(JsonObject& object, const v1::Message& message);
// All of a delivery, with its message's members beside its own.
JsonObject DeliveryJson(const v1::Delivery& delivery);
JsonObject TopicMessageJson(const v1::TopicMessage& message);

// "already_settled", "stale_lease" ...: stable, for programs.
std::string SettleErrorName(v1::SettleError error);
// The same as a sentence.
std::string SettleErrorText(const v1::SettleFailure& failure);

}  // namespace postkeeper::cli

#endif  // POSTKEEPER_CLI_PROTOS_H_
