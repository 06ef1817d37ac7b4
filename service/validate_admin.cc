// Queues and topics: create, update, delete, list, and looking at them.
#include <algorithm>
#include <array>
#include <tuple>
#include <utility>

#include "postkeeper/v1/admin.pb.h"
#include "postkeeper/v1/cluster.pb.h"
#include "service/field_checks.h"
#include "service/unserved.h"
#include "service/validate.h"

namespace postkeeper {
namespace {

// What Create and Update read of a field; nullopt = unset.
std::optional<Duration> DurationSetting(bool is_set, const google::protobuf::Duration& value, const std::string& field,
                                        Duration min, Duration max, FieldChecks& checks) {
  if (!is_set) return std::nullopt;
  return std::chrono::floor<std::chrono::milliseconds>(checks.Between(field, value, min, max));
}

std::optional<std::int64_t> CountSetting(std::int64_t value, const std::string& field, std::int64_t max,
                                         FieldChecks& checks) {
  if (value == 0) return std::nullopt;
  return checks.Between(field, value, 1, max);
}

QueueChanges AllSet(const v1::Queue& queue, FieldChecks& checks) {
  QueueChanges set;
  set.lease_duration = DurationSetting(queue.has_lease_duration(), queue.lease_duration(), "queue.lease_duration",
                                       kLeaseMin, kLeaseMax, checks);
  set.retry_backoff = DurationSetting(queue.has_retry_backoff(), queue.retry_backoff(), "queue.retry_backoff",
                                      kBackoffMin, kBackoffLongest, checks);
  set.retry_backoff_max = DurationSetting(queue.has_retry_backoff_max(), queue.retry_backoff_max(),
                                          "queue.retry_backoff_max", kBackoffMin, kBackoffLongest, checks);
  set.max_messages = CountSetting(queue.max_messages(), "queue.max_messages", kSettingMessagesMax, checks);
  set.max_bytes = CountSetting(queue.max_bytes(), "queue.max_bytes", kSettingBytesMax, checks);
  return set;
}

TopicChanges AllSet(const v1::Topic& topic, FieldChecks& checks) {
  TopicChanges set;
  set.retention = DurationSetting(topic.has_retention(), topic.retention(), "topic.retention", kRetentionMin,
                                  kRetentionMax, checks);
  set.max_messages = CountSetting(topic.max_messages(), "topic.max_messages", kSettingMessagesMax, checks);
  set.max_bytes = CountSetting(topic.max_bytes(), "topic.max_bytes", kSettingBytesMax, checks);
  return set;
}

// One setting of a queue or topic: what the API calls it, and where it stands.
template <typename Settings, typename Changes, typename T>
struct Setting {
  std::string_view name;
  T Settings::*value;
  std::optional<T> Changes::*change;
};

constexpr auto kQueueSettings =
    std::make_tuple(Setting{"lease_duration", &QueueSettings::lease_duration, &QueueChanges::lease_duration},
                    Setting{"retry_backoff", &QueueSettings::retry_backoff, &QueueChanges::retry_backoff},
                    Setting{"retry_backoff_max", &QueueSettings::retry_backoff_max, &QueueChanges::retry_backoff_max},
                    Setting{"max_messages", &QueueSettings::max_messages, &QueueChanges::max_messages},
                    Setting{"max_bytes", &QueueSettings::max_bytes, &QueueChanges::max_bytes});
constexpr auto kTopicSettings =
    std::make_tuple(Setting{"retention", &TopicSettings::retention, &TopicChanges::retention},
                    Setting{"max_messages", &TopicSettings::max_messages, &TopicChanges::max_messages},
                    Setting{"max_bytes", &TopicSettings::max_bytes, &TopicChanges::max_bytes});

template <typename F>
void ForEach(const auto& settings, F f) {
  std::apply([&](const auto&... setting) { (f(setting), ...); }, settings);
}

bool IsGivenByServer(std::string_view path) {
  constexpr std::array<std::string_view, 4> kGivenByServer = {"name", "uid", "etag", "create_time"};
  return std::find(kGivenByServer.begin(), kGivenByServer.end(), path) != kGivenByServer.end();
}

// The changes that the mask asks for, given all that is set in the request. `type` is e.g. postkeeper.v1.Queue.
template <typename Settings, typename Changes>
Changes Masked(const google::protobuf::FieldMask& mask, const Changes& set, const auto& settings, std::string_view type,
               FieldChecks& checks) {
  if (mask.paths_size() == 0) return set;
  Changes masked;
  for (const std::string& path : mask.paths()) {
    bool is_setting = path == "*";
    ForEach(settings, [&](const auto& setting) {
      if (path != "*" && path != setting.name) return;
      is_setting = true;
      // Named but unset: back to the default.
      masked.*setting.change = (set.*setting.change).value_or(Settings{}.*setting.value);
    });
    if (is_setting) continue;
    if (IsGivenByServer(path)) {
      checks.Invalid("update_mask", Cat("names ", path, ", which cannot be changed"));
    } else if (IsUnserved(Cat(type, ".", path))) {
      checks.Add(MakeError(Reason::kFieldNotServed,
                           Cat("update_mask names ", path, ", which is not served by this build"), {.field = path}));
    } else {
      checks.Invalid("update_mask", Cat("names ", Quoted(path), ", which is not a setting"));
    }
  }
  return masked;
}

template <typename Settings, typename Changes>
Settings Merge(const Changes& changes, const Settings& current, const auto& settings) {
  Settings merged = current;
  ForEach(settings, [&](const auto& setting) {
    if (changes.*setting.change) merged.*setting.value = *(changes.*setting.change);
  });
  return merged;
}

template <typename Settings>
std::string_view Difference(const Settings& a, const Settings& b, const auto& settings) {
  std::string_view first;
  ForEach(settings, [&](const auto& setting) {
    if (first.empty() && a.*setting.value != b.*setting.value) first = setting.name;
  });
  return first;
}

std::optional<Etag> CheckEtag(const std::string& text, const std::string& field, FieldChecks& checks) {
  if (text.empty()) return std::nullopt;
  const std::optional<Etag> etag = DecodeEtag(text);
  if (!etag) checks.Invalid(field, Cat("= ", Quoted(text), " is not an etag. Give one back as it was received"));
  return etag;
}

template <typename Request>
absl::StatusOr<CheckedDelete> CheckDelete(const Request& request, absl::StatusOr<Name> name) {
  FieldChecks checks;
  checks.Served(request);
  CheckedDelete checked;
  checked.name = checks.Take(std::move(name));
  checked.etag = CheckEtag(request.etag(), "etag", checks);
  checked.allow_missing = request.allow_missing();
  return checks.Result(std::move(checked));
}

// What every list has.
template <typename Request>
int CheckPageSize(const Request& request, FieldChecks& checks) {
  const std::int64_t size = checks.Between("page_size", request.page_size(), 0, kPageSizeMax);
  return size == 0 ? kPageSizeDefault : static_cast<int>(size);
}

template <typename Request>
std::string CheckPageToken(const Request& request, std::string_view list, FieldChecks& checks) {
  if (request.page_token().empty()) return "";
  std::optional<std::string> after = DecodePageToken(list, request.page_token());
  if (!after) {
    checks.Invalid("page_token", Cat("= ", Quoted(request.page_token()),
                                     " is not a page token of this list. Start again without one"));
  }
  return after.value_or("");
}

template <typename Request>
absl::StatusOr<CheckedList> CheckList(const Request& request, std::string_view what) {
  FieldChecks checks;
  checks.Served(request);
  CheckedList checked;
  checked.name_space = checks.Take(ParseNamespace(request.parent()));
  checked.page_size = CheckPageSize(request, checks);
  checked.list = Cat(checked.name_space, "/", what);
  checked.after = CheckPageToken(request, checked.list, checks);
  return checks.Result(std::move(checked));
}

template <typename Request>
absl::StatusOr<Name> CheckNameOnly(const Request& request, absl::StatusOr<Name> name) {
  FieldChecks checks;
  checks.Served(request);
  Name checked = checks.Take(std::move(name));
  return checks.Result(std::move(checked));
}

}  // namespace

absl::StatusOr<QueueSettings> QueueChanges::ApplyTo(const QueueSettings& current) const {
  QueueSettings merged = Merge(*this, current, kQueueSettings);
  if (merged.retry_backoff <= merged.retry_backoff_max) return merged;
  return InvalidField("queue.retry_backoff",
                      Cat("is ", Readable(merged.retry_backoff), "; it must not be above retry_backoff_max, which is ",
                          Readable(merged.retry_backoff_max), ". Set both"));
}

absl::StatusOr<TopicSettings> TopicChanges::ApplyTo(const TopicSettings& current) const {
  return Merge(*this, current, kTopicSettings);
}

absl::StatusOr<CheckedCreateQueue> CheckCreateQueue(const v1::CreateQueueRequest& request) {
  FieldChecks checks;
  checks.Served(request);
  CheckedCreateQueue checked;
  checked.name = checks.Take(ParseQueueName(request.queue().name(), "queue.name"));
  const QueueChanges set = AllSet(request.queue(), checks);
  if (checks.ok()) checked.settings = checks.Take(set.ApplyTo(QueueSettings{}));
  return checks.Result(std::move(checked));
}

absl::StatusOr<CheckedCreateTopic> CheckCreateTopic(const v1::CreateTopicRequest& request) {
  FieldChecks checks;
  checks.Served(request);
  CheckedCreateTopic checked;
  checked.name = checks.Take(ParseTopicName(request.topic().name(), "topic.name"));
  const TopicChanges set = AllSet(request.topic(), checks);
  if (checks.ok()) checked.settings = checks.Take(set.ApplyTo(TopicSettings{}));
  return checks.Result(std::move(checked));
}

absl::StatusOr<CheckedUpdateQueue> CheckUpdateQueue(const v1::UpdateQueueRequest& request) {
  FieldChecks checks;
  checks.Served(request);
  CheckedUpdateQueue checked;
  checked.name = checks.Take(ParseQueueName(request.queue().name(), "queue.name"));
  const QueueChanges set = AllSet(request.queue(), checks);
  checked.changes =
      Masked<QueueSettings>(request.update_mask(), set, kQueueSettings, v1::Queue::descriptor()->full_name(), checks);
  checked.settings_if_missing = set.ApplyTo(QueueSettings{});
  checked.etag = CheckEtag(request.queue().etag(), "queue.etag", checks);
  checked.allow_missing = request.allow_missing();
  return checks.Result(std::move(checked));
}

absl::StatusOr<CheckedUpdateTopic> CheckUpdateTopic(const v1::UpdateTopicRequest& request) {
  FieldChecks checks;
  checks.Served(request);
  CheckedUpdateTopic checked;
  checked.name = checks.Take(ParseTopicName(request.topic().name(), "topic.name"));
  const TopicChanges set = AllSet(request.topic(), checks);
  checked.changes =
      Masked<TopicSettings>(request.update_mask(), set, kTopicSettings, v1::Topic::descriptor()->full_name(), checks);
  checked.settings_if_missing = set.ApplyTo(TopicSettings{});
  checked.etag = CheckEtag(request.topic().etag(), "topic.etag", checks);
  checked.allow_missing = request.allow_missing();
  return checks.Result(std::move(checked));
}

std::string_view FirstDifference(const QueueSettings& a, const QueueSettings& b) {
  return Difference(a, b, kQueueSettings);
}

std::string_view FirstDifference(const TopicSettings& a, const TopicSettings& b) {
  return Difference(a, b, kTopicSettings);
}

absl::StatusOr<CheckedDelete> CheckDeleteQueue(const v1::DeleteQueueRequest& request) {
  return CheckDelete(request, ParseQueueName(request.name(), "name"));
}

absl::StatusOr<CheckedDelete> CheckDeleteTopic(const v1::DeleteTopicRequest& request) {
  return CheckDelete(request, ParseTopicName(request.name(), "name"));
}

absl::StatusOr<CheckedList> CheckListQueues(const v1::ListQueuesRequest& request) {
  return CheckList(request, "queues");
}

absl::StatusOr<CheckedList> CheckListTopics(const v1::ListTopicsRequest& request) {
  return CheckList(request, "topics");
}

absl::StatusOr<CheckedPurge> CheckPurgeQueue(const v1::PurgeQueueRequest& request) {
  absl::StatusOr<Name> queue = CheckNameOnly(request, ParseQueueName(request.name(), "name"));
  if (!queue.ok()) return queue.status();
  return CheckedPurge{*std::move(queue), request.leased_too()};
}

absl::StatusOr<Name> CheckGetQueue(const v1::GetQueueRequest& request) {
  return CheckNameOnly(request, ParseQueueName(request.name(), "name"));
}

absl::StatusOr<Name> CheckGetTopic(const v1::GetTopicRequest& request) {
  return CheckNameOnly(request, ParseTopicName(request.name(), "name"));
}

absl::StatusOr<Name> CheckGetStats(const v1::GetStatsRequest& request) {
  return CheckNameOnly(request, ParseSourceName(request.source()));
}

absl::StatusOr<CheckedListReplicas> CheckListReplicas(const v1::ListReplicasRequest& request) {
  FieldChecks checks;
  checks.Served(request);
  CheckedListReplicas checked;
  checked.page_size = CheckPageSize(request, checks);
  checked.after = CheckPageToken(request, kReplicasList, checks);
  return checks.Result(std::move(checked));
}

absl::Status CheckGetServerInfo(const v1::GetServerInfoRequest& request) { return RefuseUnserved(request); }

}  // namespace postkeeper
