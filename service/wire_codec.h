// Between the service's own values and the bytes of the API, where it has to be fast: a message's bytes are copied once
// from the batch into what is sent, and no protobuf object is built for it.
#ifndef POSTKEEPER_SERVICE_WIRE_CODEC_H_
#define POSTKEEPER_SERVICE_WIRE_CODEC_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "service/queue_engine.h"
#include "zkstore/batch.h"
#include "zkstore/log_appender.h"

namespace grpc {
class ByteBuffer;
class Slice;
}  // namespace grpc
namespace google::protobuf {
class Message;
class MessageLite;
}  // namespace google::protobuf

namespace postkeeper {

// MALFORMED_REQUEST unless `bytes` are a postkeeper.v1.`type`.
absl::Status DecodeRequest(const grpc::ByteBuffer& bytes, std::string_view type, google::protobuf::Message& request);

grpc::Slice EncodeMessage(const google::protobuf::MessageLite& message);

// postkeeper.v1.EnqueueResponse, PublishResponse, EnqueueStreamResponse and PublishStreamResponse, which are alike.
grpc::Slice EncodeAppended(const Appended& appended);

// postkeeper.v1.AckResponse, NackResponse and ExtendResponse, which are alike.
grpc::Slice EncodeFailures(const std::vector<SettleFailure>& failures);

// The frame of postkeeper.v1.ConsumeResponse that answers a settling frame.
grpc::Slice EncodeSettled(std::int64_t sequence, const std::vector<SettleFailure>& failures);

// Collects deliveries for one answer. Not thread-safe; empty again after Take...
class DeliveryEncoder {
 public:
  // `bytes_max` of Add is for the whole answer.
  static constexpr std::size_t kOverheadBytes = 64;

  // Returns false, and adds nothing, if the answer would become larger than `bytes_max`; the first delivery always
  // fits.
  bool Add(const Delivery& delivery, std::size_t bytes_max);
  bool empty() const { return count_ == 0; }
  int count() const { return count_; }
  std::size_t bytes() const { return body_.size(); }

  // postkeeper.v1.ConsumeResponse.
  grpc::Slice TakeConsumeResponse(Duration lease);
  // postkeeper.v1.DequeueResponse.
  grpc::Slice TakeDequeueResponse(Duration lease, const std::vector<SettleFailure>& failures);

 private:
  std::string TakeBody();

  std::string body_;  // behind room for what comes before it
  int count_ = 0;
};

// Collects a topic's messages for one postkeeper.v1.SubscribeResponse. Not thread-safe; empty again after Take.
class TopicMessageEncoder {
 public:
  TopicMessageEncoder(const Uid& topic, std::string topic_name);

  // The messages of a batch from first_index on. `at` is the position of the batch's first message.
  void Add(const Batch& batch, Position at, std::uint32_t first_index);
  // What Add would add, at most.
  std::size_t BytesOf(const Batch& batch) const;
  int count() const { return count_; }
  std::size_t bytes() const { return body_.size(); }

  // Positions as of the topic's log: read up to, and the newest known.
  grpc::Slice Take(Position position, Position tail);

 private:
  const Uid topic_;
  const std::string topic_name_;
  std::string body_;
  int count_ = 0;
};

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_WIRE_CODEC_H_
