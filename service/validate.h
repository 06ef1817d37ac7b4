// The checks of requests at the door. What has passed them is within every bound that the API states.
//
// Each function takes one request of the API and returns it in the service's own words: names parsed, defaults filled
// in, times resolved. If several errors apply, the first one in the order of Reason is returned: MALFORMED_REQUEST,
// INVALID_NAME, INVALID_FIELD (field = messages[3].body), MESSAGE_TOO_LARGE, REQUEST_TOO_LARGE, MALFORMED_POSITION,
// FIELD_NOT_SERVED. Fields that are declared but not served, and fields that this build does not know, are always
// refused (service/unserved.h). What cannot be known at the door (does the queue exist, is a token still good) is not
// looked at.
//
// All functions are thread-safe and neither block nor keep anything of the request.
#ifndef POSTKEEPER_SERVICE_VALIDATE_H_
#define POSTKEEPER_SERVICE_VALIDATE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "service/names.h"
#include "zkstore/batch.h"
#include "zkstore/environment.h"
#include "zkstore/settings.h"
#include "zkstore/text_id.h"

namespace google::protobuf {
class Message;
namespace io {
class ZeroCopyInputStream;
}
}  // namespace google::protobuf

namespace postkeeper {

namespace wire::v1 {
class AppendRequest;
}
namespace v1 {
class AckRequest;
class ConsumeRequest;
class CreateQueueRequest;
class CreateTopicRequest;
class DeleteQueueRequest;
class DeleteTopicRequest;
class DequeueRequest;
class ExtendRequest;
class GetQueueRequest;
class GetServerInfoRequest;
class GetStatsRequest;
class GetTopicRequest;
class ListQueuesRequest;
class ListReplicasRequest;
class ListTopicsRequest;
class NackRequest;
class PurgeQueueRequest;
class SubscribeRequest;
class UpdateQueueRequest;
class UpdateTopicRequest;
}  // namespace v1

// ---- Bounds of the API. Those in RequestLimits can be configured.

inline constexpr int kAttributesMax = 64;
inline constexpr std::size_t kAttributeKeyBytesMax = 128;
inline constexpr std::size_t kAttributeValueBytesMax = 1024;
inline constexpr std::string_view kReservedAttributePrefix = "postkeeper-";
inline constexpr std::size_t kContentTypeBytesMax = 128;
inline constexpr std::size_t kOrderingKeyBytesMax = 256;
inline constexpr std::size_t kDedupIdBytesMax = 128;
inline constexpr int kPriorityMax = 9;
inline constexpr std::size_t kRequestIdBytesMax = 64;
inline constexpr std::size_t kConsumerBytesMax = 128;
inline constexpr std::size_t kReasonBytesMax = 1024;
inline constexpr std::size_t kFilterBytesMax = 1024;
inline constexpr Duration kDelayMax = std::chrono::hours(30 * 24);
inline constexpr Duration kWaitDefault = std::chrono::seconds(20);
inline constexpr Duration kWaitMax = std::chrono::seconds(60);
inline constexpr Duration kLeaseMin = std::chrono::seconds(1);
inline constexpr Duration kLeaseMax = std::chrono::hours(12);
inline constexpr Duration kHeartbeatDefault = std::chrono::seconds(10);
inline constexpr Duration kHeartbeatMin = std::chrono::seconds(1);
inline constexpr Duration kHeartbeatMax = std::chrono::seconds(60);
inline constexpr int kSettleTokensMax = 1000;   // of one Ack, Nacks or Extensions
inline constexpr int kFrameTokensMax = 10'000;  // of one ConsumeRequest
inline constexpr std::int64_t kCreditMessagesMax = 10'000;
inline constexpr std::int64_t kCreditBytesMax = 64 << 20;
inline constexpr std::int64_t kCreditBytesDefault = 3 << 20;
inline constexpr std::int64_t kOpenCreditMessagesDefault = 100;
inline constexpr int kPageSizeDefault = 100;
inline constexpr int kPageSizeMax = 1000;
inline constexpr Duration kBackoffMin = std::chrono::milliseconds(100);
inline constexpr Duration kBackoffLongest = kDelayMax;
inline constexpr Duration kRetentionMin = std::chrono::minutes(1);
inline constexpr Duration kRetentionMax = std::chrono::hours(30 * 24);
// Far above what a store can hold, and low enough that sums cannot overflow.
inline constexpr std::int64_t kSettingMessagesMax = 1'000'000'000'000;
inline constexpr std::int64_t kSettingBytesMax = std::int64_t{1} << 50;

struct RequestLimits {
  std::int64_t message_bytes_max = 512 << 10;
  std::int64_t request_bytes_max = 512 << 10;  // of all messages of one request together
  int request_messages_max = 4096;
  int dequeue_messages_max = 1000;
  std::int64_t response_bytes_max = 3 << 20;  // messages in one answer
};

// ---- Bytes

// MALFORMED_REQUEST unless `bytes` are such a request, all text in it UTF-8. `type` is the public type, for the error:
// "EnqueueRequest".
absl::Status ParseRequest(google::protobuf::io::ZeroCopyInputStream& bytes, std::string_view type,
                          google::protobuf::Message& request);
absl::Status ParseRequest(std::string_view bytes, std::string_view type, google::protobuf::Message& request);

// ---- Enqueue, Publish and their streams

struct CheckedAppend {
  std::optional<Name> log;  // nullopt only in a later frame of a stream: the same as before
  std::vector<NewMessage> messages;
  std::int64_t message_bytes = 0;  // of all of them
  std::size_t dedup_ids = 0;       // so many of them have one
  std::string request_id;          // "" = none

  bool has_id() const { return !request_id.empty() || dedup_ids > 0; }
  // The same again writes nothing twice.
  bool is_safe_to_repeat() const { return !request_id.empty() || dedup_ids == messages.size(); }
};

struct AppendContext {
  Name::Kind log_kind = Name::Kind::kQueue;
  const Name* stream_log = nullptr;  // in a later frame of a stream: what the first frame named
  WallTime now{};
  RequestLimits limits;
};

// Parses each message once and moves its bytes out of `request`. A message above the limit is not parsed, and only the
// first request_messages_max messages are looked at.
absl::StatusOr<CheckedAppend> CheckAppend(wire::v1::AppendRequest&& request, const AppendContext& context);

// The check of one message: OK, and when it is due (NewMessage::kNotDelayed = at once), or the error that names
// `path`, e.g. "messages[3]".
absl::StatusOr<WallTime> CheckMessage(std::string_view bytes, std::string_view path, WallTime now,
                                      const RequestLimits& limits);

// ---- Dequeue, Ack, Nack, Extend, Consume

struct CheckedDequeue {
  Name source;
  int messages_max = 1;
  std::int64_t bytes_max = 0;     // never above the limit of a response; the first message always fits
  Duration wait{};                // not yet shortened by the call's deadline
  std::optional<Duration> lease;  // unset = the source's
  std::vector<std::string> ack_tokens;
  std::string consumer;
};
absl::StatusOr<CheckedDequeue> CheckDequeue(v1::DequeueRequest&& request, const RequestLimits& limits = {});

struct CheckedAck {
  Name source;
  std::vector<std::string> lease_tokens;
};
absl::StatusOr<CheckedAck> CheckAck(v1::AckRequest&& request);

enum class NackKind { kRetry, kRelease };

struct CheckedNacks {
  std::vector<std::string> lease_tokens;
  NackKind kind = NackKind::kRetry;
  std::string reason;
  std::optional<Duration> delay;  // unset = the source's backoff for kRetry, none for kRelease
};
struct CheckedNack {
  Name source;
  CheckedNacks nacks;
};
absl::StatusOr<CheckedNack> CheckNack(v1::NackRequest&& request);

struct CheckedExtensions {
  std::vector<std::string> lease_tokens;
  std::optional<Duration> lease;  // unset = the source's
};
struct CheckedExtend {
  Name source;
  CheckedExtensions extensions;
};
absl::StatusOr<CheckedExtend> CheckExtend(v1::ExtendRequest&& request);

struct CheckedCredit {
  std::int64_t messages = 0;
  std::int64_t bytes = 0;
};

struct CheckedOpen {
  Name source;
  CheckedCredit credit;
  bool is_credit_manual = false;
  std::optional<Duration> lease;  // unset = the source's
  bool keeps_leases = false;
  Duration heartbeat_interval{};
  std::string consumer;
};

// One frame of a Consume stream, to be acted on in this order: settle, credit, drain.
struct CheckedFrame {
  std::optional<CheckedOpen> open;  // in the first frame, and only there
  std::int64_t sequence = 0;        // 0 = none given
  std::vector<std::string> ack_tokens;
  std::vector<CheckedNacks> nacks;
  std::vector<CheckedExtensions> extensions;
  std::optional<CheckedCredit> credit;
  bool drains = false;

  bool Settles() const { return !ack_tokens.empty() || !nacks.empty() || !extensions.empty(); }
};

// What the frames so far leave behind. One per stream.
struct FrameState {
  bool is_open = false;
  std::int64_t last_sequence = 0;
};
// On error `state` is unchanged, and the stream ends. Whether the sum of credits stays within bounds is known only to
// the stream: see AddCredit.
absl::StatusOr<CheckedFrame> CheckFrame(v1::ConsumeRequest&& request, FrameState& state);
// INVALID_FIELD if `left` and `added` are together above kCreditMessagesMax or kCreditBytesMax; else the sum.
absl::StatusOr<CheckedCredit> AddCredit(const CheckedCredit& left, const CheckedCredit& added);

// ---- Subscribe

struct StartLatest {
  friend bool operator==(StartLatest, StartLatest) = default;
};
struct StartEarliest {
  friend bool operator==(StartEarliest, StartEarliest) = default;
};
// Behind this position. Whether it is of the topic is asked with PositionOf (zkstore/text_id.h).
using StartAfter = PositionText;
using CheckedStart = std::variant<StartLatest, StartEarliest, StartAfter, WallTime>;

struct CheckedSubscribe {
  Name topic;
  CheckedStart start;
  Duration heartbeat_interval{};
  std::string subscriber;
};
absl::StatusOr<CheckedSubscribe> CheckSubscribe(v1::SubscribeRequest&& request);

// ---- Queues and topics

// The new values of the fields to change.
struct QueueChanges {
  std::optional<Duration> lease_duration;
  std::optional<Duration> retry_backoff;
  std::optional<Duration> retry_backoff_max;
  std::optional<std::int64_t> max_messages;
  std::optional<std::int64_t> max_bytes;

  // `current` with the changes; INVALID_FIELD if they do not go together.
  absl::StatusOr<QueueSettings> ApplyTo(const QueueSettings& current) const;
};

struct TopicChanges {
  std::optional<Duration> retention;
  std::optional<std::int64_t> max_messages;
  std::optional<std::int64_t> max_bytes;

  absl::StatusOr<TopicSettings> ApplyTo(const TopicSettings& current) const;
};

template <typename Settings>
struct CheckedCreate {
  Name name;
  Settings settings;
};
template <typename Settings, typename Changes>
struct CheckedUpdate {
  Name name;
  Changes changes;
  // What is created if it is missing and allow_missing is set: all that is set in the request, whatever the mask says.
  // An error when those do not go together.
  absl::StatusOr<Settings> settings_if_missing = Settings{};
  std::optional<Etag> etag;
  bool allow_missing = false;
};
using CheckedCreateQueue = CheckedCreate<QueueSettings>;
using CheckedCreateTopic = CheckedCreate<TopicSettings>;
using CheckedUpdateQueue = CheckedUpdate<QueueSettings, QueueChanges>;
using CheckedUpdateTopic = CheckedUpdate<TopicSettings, TopicChanges>;

absl::StatusOr<CheckedCreateQueue> CheckCreateQueue(const v1::CreateQueueRequest& request);
absl::StatusOr<CheckedCreateTopic> CheckCreateTopic(const v1::CreateTopicRequest& request);
absl::StatusOr<CheckedUpdateQueue> CheckUpdateQueue(const v1::UpdateQueueRequest& request);
absl::StatusOr<CheckedUpdateTopic> CheckUpdateTopic(const v1::UpdateTopicRequest& request);

// The name (queue.lease_duration is "lease_duration") of the first setting that differs; "" if none does. For
// OTHER_SETTINGS.
std::string_view FirstDifference(const QueueSettings& a, const QueueSettings& b);
std::string_view FirstDifference(const TopicSettings& a, const TopicSettings& b);

struct CheckedDelete {
  Name name;
  std::optional<Etag> etag;
  bool allow_missing = false;
};
absl::StatusOr<CheckedDelete> CheckDeleteQueue(const v1::DeleteQueueRequest& request);
absl::StatusOr<CheckedDelete> CheckDeleteTopic(const v1::DeleteTopicRequest& request);

struct CheckedList {
  std::string name_space;
  int page_size = kPageSizeDefault;
  std::string after;  // go on behind this name; "" = from the start
  std::string list;   // which list this is; for EncodePageToken
};
absl::StatusOr<CheckedList> CheckListQueues(const v1::ListQueuesRequest& request);
absl::StatusOr<CheckedList> CheckListTopics(const v1::ListTopicsRequest& request);

struct CheckedPurge {
  Name queue;
  bool leased_too = false;
};
absl::StatusOr<CheckedPurge> CheckPurgeQueue(const v1::PurgeQueueRequest& request);

absl::StatusOr<Name> CheckGetQueue(const v1::GetQueueRequest& request);
absl::StatusOr<Name> CheckGetTopic(const v1::GetTopicRequest& request);
absl::StatusOr<Name> CheckGetStats(const v1::GetStatsRequest& request);

// ---- The cluster

struct CheckedListReplicas {
  int page_size = kPageSizeDefault;
  std::string after;  // go on behind this name; "" = from the start
};
// Which list it is, for EncodePageToken.
inline constexpr std::string_view kReplicasList = "replicas";

absl::StatusOr<CheckedListReplicas> CheckListReplicas(const v1::ListReplicasRequest& request);
absl::Status CheckGetServerInfo(const v1::GetServerInfoRequest& request);

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_VALIDATE_H_
