#include "service/admin_service.h"

#include <utility>

#include "postkeeper/v1/admin.grpc.pb.h"
#include "service/raw_service.h"
#include "service/unary_call.h"
#include "service/unserved.h"

namespace postkeeper {
namespace {

// ---- From the catalog to the API

void SetDuration(Duration from, google::protobuf::Duration& to) {
  constexpr std::int64_t kNanosPerSecond = 1'000'000'000;
  to.set_seconds(from.count() / kNanosPerSecond);
  to.set_nanos(static_cast<std::int32_t>(from.count() % kNanosPerSecond));
}

// What both kinds have.
template <typename Message>
void FillCommon(const LogEntry& entry, Name::Kind kind, Message& to) {
  to.set_name(Name{kind, entry.name.name_space, entry.name.id, {}}.Full());
  to.set_uid(EncodeUid(entry.uid));
  to.set_etag(EncodeEtag({entry.uid, entry.version}));
  const std::int64_t ms = entry.create_time.time_since_epoch().count();
  to.mutable_create_time()->set_seconds(ms / 1000);
  to.mutable_create_time()->set_nanos(static_cast<std::int32_t>(ms % 1000 * 1'000'000));
}

void Fill(const LogEntry& entry, v1::Queue& to) {
  FillCommon(entry, Name::Kind::kQueue, to);
  const QueueSettings& settings = std::get<QueueSettings>(entry.settings);
  SetDuration(settings.lease_duration, *to.mutable_lease_duration());
  SetDuration(settings.retry_backoff, *to.mutable_retry_backoff());
  SetDuration(settings.retry_backoff_max, *to.mutable_retry_backoff_max());
  to.set_max_messages(settings.max_messages);
  to.set_max_bytes(settings.max_bytes);
}

void Fill(const LogEntry& entry, v1::Topic& to) {
  FillCommon(entry, Name::Kind::kTopic, to);
  const TopicSettings& settings = std::get<TopicSettings>(entry.settings);
  SetDuration(settings.retention, *to.mutable_retention());
  to.set_max_messages(settings.max_messages);
  to.set_max_bytes(settings.max_bytes);
}

template <typename Response>
absl::StatusOr<Response> WithQueue(const absl::StatusOr<LogEntry>& entry) {
  if (!entry.ok()) return entry.status();
  Response response;
  Fill(*entry, *response.mutable_queue());
  return response;
}

template <typename Response>
absl::StatusOr<Response> WithTopic(const absl::StatusOr<LogEntry>& entry) {
  if (!entry.ok()) return entry.status();
  Response response;
  Fill(*entry, *response.mutable_topic());
  return response;
}

// One entry more than asked for tells whether there is another page. A page of the largest size stays below 1 MiB,
// since an entry takes less than 600 bytes.
Task<absl::StatusOr<std::vector<LogEntry>>> ListPage(Broker& broker, CheckedList list, LogKind kind,
                                                     std::string* next_page_token) {
  const auto page_size = static_cast<std::size_t>(list.page_size);
  const std::string list_name = list.list;
  list.page_size += 1;
  absl::StatusOr<std::vector<LogEntry>> entries = co_await broker.List(std::move(list), kind);
  if (entries.ok() && entries->size() > page_size) {
    entries->resize(page_size);
    *next_page_token = EncodePageToken(list_name, entries->back().name.id);
  }
  co_return entries;
}

// ---- What is done

Task<absl::StatusOr<v1::CreateQueueResponse>> CreateQueue(Broker& broker, CheckedCreateQueue create) {
  LogSettings settings = create.settings;
  co_return WithQueue<v1::CreateQueueResponse>(co_await broker.Create(std::move(create.name), std::move(settings)));
}

Task<absl::StatusOr<v1::GetQueueResponse>> GetQueue(Broker& broker, Name name) {
  co_return WithQueue<v1::GetQueueResponse>(co_await broker.Get(std::move(name)));
}

Task<absl::StatusOr<v1::ListQueuesResponse>> ListQueues(Broker& broker, CheckedList list) {
  v1::ListQueuesResponse response;
  const absl::StatusOr<std::vector<LogEntry>> entries =
      co_await ListPage(broker, std::move(list), LogKind::kQueue, response.mutable_next_page_token());
  if (!entries.ok()) co_return entries.status();
  for (const LogEntry& entry : *entries) Fill(entry, *response.add_queues());
  co_return response;
}

Task<absl::StatusOr<v1::UpdateQueueResponse>> UpdateQueue(Broker& broker, CheckedUpdateQueue update) {
  co_return WithQueue<v1::UpdateQueueResponse>(co_await broker.UpdateQueue(std::move(update)));
}

Task<absl::StatusOr<v1::DeleteQueueResponse>> DeleteQueue(Broker& broker, CheckedDelete request) {
  const absl::Status status = co_await broker.Delete(std::move(request));
  if (!status.ok()) co_return status;
  co_return v1::DeleteQueueResponse();
}

Task<absl::StatusOr<v1::CreateTopicResponse>> CreateTopic(Broker& broker, CheckedCreateTopic create) {
  LogSettings settings = create.settings;
  co_return WithTopic<v1::CreateTopicResponse>(co_await broker.Create(std::move(create.name), std::move(settings)));
}

Task<absl::StatusOr<v1::GetTopicResponse>> GetTopic(Broker& broker, Name name) {
  co_return WithTopic<v1::GetTopicResponse>(co_await broker.Get(std::move(name)));
}

Task<absl::StatusOr<v1::ListTopicsResponse>> ListTopics(Broker& broker, CheckedList list) {
  v1::ListTopicsResponse response;
  const absl::StatusOr<std::vector<LogEntry>> entries =
      co_await ListPage(broker, std::move(list), LogKind::kTopic, response.mutable_next_page_token());
  if (!entries.ok()) co_return entries.status();
  for (const LogEntry& entry : *entries) Fill(entry, *response.add_topics());
  co_return response;
}

Task<absl::StatusOr<v1::UpdateTopicResponse>> UpdateTopic(Broker& broker, CheckedUpdateTopic update) {
  co_return WithTopic<v1::UpdateTopicResponse>(co_await broker.UpdateTopic(std::move(update)));
}

Task<absl::StatusOr<v1::DeleteTopicResponse>> DeleteTopic(Broker& broker, CheckedDelete request) {
  const absl::Status status = co_await broker.Delete(std::move(request));
  if (!status.ok()) co_return status;
  co_return v1::DeleteTopicResponse();
}

Task<absl::StatusOr<v1::PurgeQueueResponse>> Purge(std::shared_ptr<QueueEngine> queue, bool leased_too) {
  const absl::StatusOr<std::int64_t> purged = co_await queue->Purge(leased_too);
  if (!purged.ok()) co_return purged.status();
  v1::PurgeQueueResponse response;
  response.set_purged(*purged);
  co_return response;
}

Task<absl::StatusOr<v1::GetStatsResponse>> GetStats(std::shared_ptr<QueueEngine> queue, Name) {
  const absl::StatusOr<QueueEngine::Stats> stats = co_await queue->GetStats();
  if (!stats.ok()) co_return stats.status();
  v1::GetStatsResponse response;
  response.set_ready(stats->counts.ready);
  response.set_delayed(stats->counts.delayed);
  response.set_leased(stats->counts.leased);
  response.set_bytes(stats->counts.bytes);
  response.set_consumers(static_cast<std::int32_t>(stats->consumers));
  if (stats->oldest_age) SetDuration(*stats->oldest_age, *response.mutable_oldest_age());
  response.set_enqueue_rate(stats->enqueue_rate);
  response.set_settle_rate(stats->settle_rate);
  co_return response;
}

// The checks, which also tell whether the call may be repeated.
template <typename Checked, typename Request>
auto SafeWithEtag(UnaryCall* call, absl::StatusOr<Checked> (*check)(const Request&)) {
  return [call, check](const Request& request) {
    absl::StatusOr<Checked> checked = check(request);
    if (checked.ok()) call->SetSafeToRepeat(checked->etag.has_value());
    return checked;
  };
}

template <typename Checked, typename Request>
auto SafeIfMayBeMissing(UnaryCall* call, absl::StatusOr<Checked> (*check)(const Request&)) {
  return [call, check](const Request& request) {
    absl::StatusOr<Checked> checked = check(request);
    if (checked.ok()) call->SetSafeToRepeat(checked->allow_missing);
    return checked;
  };
}

// ---- To the owner, which must hear of new settings, and alone may delete

template <typename Checked, typename Work>
Task<void> RelayOrServe(UnaryCall* call, LogHandle log, Checked checked, Work work) {
  const bool is_answered = log.is_serving() ? false : co_await call->RelayIfElsewhere(log);
  if (is_answered) co_return;
  Spawn(call->desk().environment.executor(), AnswerWith(call, work(call->broker(), std::move(checked))));
}

// A log that is not there has no owner: `work` says what that means.
template <typename Checked, typename Work>
Task<void> FindAndServe(UnaryCall* call, Checked checked, Work work) {
  std::optional<LogHandle> log = LogHandle::Find(call->broker(), checked.name);
  if (!log) {
    const absl::StatusOr<LogEntry> entry = co_await call->broker().Get(checked.name);
    if (entry.ok()) {
      absl::StatusOr<LogHandle> opened = co_await LogHandle::Open(call->broker(), checked.name);
      if (opened.ok()) log = *std::move(opened);
    }
  }
  if (log) {
    const asio::any_io_executor strand = log->strand();
    Spawn(strand, RelayOrServe(call, *std::move(log), std::move(checked), std::move(work)));
  } else {
    Spawn(call->desk().environment.executor(), AnswerWith(call, work(call->broker(), std::move(checked))));
  }
}

// As ServeWithBroker, by the replica that works for the log.
template <typename Request, typename Check, typename Work>
grpc::ServerUnaryReactor* ServeAtOwner(UnaryCall* call, const grpc::ByteBuffer& bytes, const Check& check,
                                       const Work& work) {
  grpc::ServerUnaryReactor* reactor = call->reactor();
  if (auto checked = ReadRequest<Request>(call, bytes, check)) {
    Spawn(call->desk().environment.executor(), FindAndServe(call, *std::move(checked), work));
  }
  return reactor;
}

// ---- The front desk

using Generated = v1::AdminService;
using RawAdminService =
    RawService<Generated::Service, Generated::WithRawCallbackMethod_CreateQueue,
               Generated::WithRawCallbackMethod_GetQueue, Generated::WithRawCallbackMethod_ListQueues,
               Generated::WithRawCallbackMethod_UpdateQueue, Generated::WithRawCallbackMethod_DeleteQueue,
               Generated::WithRawCallbackMethod_CreateTopic, Generated::WithRawCallbackMethod_GetTopic,
               Generated::WithRawCallbackMethod_ListTopics, Generated::WithRawCallbackMethod_UpdateTopic,
               Generated::WithRawCallbackMethod_DeleteTopic, Generated::WithRawCallbackMethod_CreateSubscription,
               Generated::WithRawCallbackMethod_GetSubscription, Generated::WithRawCallbackMethod_ListSubscriptions,
               Generated::WithRawCallbackMethod_UpdateSubscription, Generated::WithRawCallbackMethod_DeleteSubscription,
               Generated::WithRawCallbackMethod_PurgeQueue, Generated::WithRawCallbackMethod_GetStats>::Type;

class AdminService final : public RawAdminService {
  using Context = grpc::CallbackServerContext;
  using Bytes = grpc::ByteBuffer;
  using Unary = grpc::ServerUnaryReactor;

 public:
  explicit AdminService(Desk& desk) : desk_(desk) {}

  Unary* CreateQueue(Context* context, const Bytes* request, Bytes* response) override {
    UnaryCall* call = NewCall("CreateQueue", context, request, response);
    return ServeWithBroker<v1::CreateQueueRequest>(call, *request, CheckCreateQueue, postkeeper::CreateQueue);
  }
  Unary* GetQueue(Context* context, const Bytes* request, Bytes* response) override {
    UnaryCall* call = NewCall("GetQueue", context, request, response);
    return ServeWithBroker<v1::GetQueueRequest>(call, *request, CheckGetQueue, postkeeper::GetQueue);
  }
  Unary* ListQueues(Context* context, const Bytes* request, Bytes* response) override {
    UnaryCall* call = NewCall("ListQueues", context, request, response);
    return ServeWithBroker<v1::ListQueuesRequest>(call, *request, CheckListQueues, postkeeper::ListQueues);
  }
  Unary* UpdateQueue(Context* context, const Bytes* request, Bytes* response) override {
    UnaryCall* call = NewCall("UpdateQueue", context, request, response);
    return ServeAtOwner<v1::UpdateQueueRequest>(call, *request, SafeWithEtag(call, CheckUpdateQueue),
                                                postkeeper::UpdateQueue);
  }
  Unary* DeleteQueue(Context* context, const Bytes* request, Bytes* response) override {
    UnaryCall* call = NewCall("DeleteQueue", context, request, response);
    return ServeAtOwner<v1::DeleteQueueRequest>(call, *request, SafeIfMayBeMissing(call, CheckDeleteQueue),
                                                postkeeper::DeleteQueue);
  }

  Unary* CreateTopic(Context* context, const Bytes* request, Bytes* response) override {
    UnaryCall* call = NewCall("CreateTopic", context, request, response);
    return ServeWithBroker<v1::CreateTopicRequest>(call, *request, CheckCreateTopic, postkeeper::CreateTopic);
  }
  Unary* GetTopic(Context* context, const Bytes* request, Bytes* response) override {
    UnaryCall* call = NewCall("GetTopic", context, request, response);
    return ServeWithBroker<v1::GetTopicRequest>(call, *request, CheckGetTopic, postkeeper::GetTopic);
  }
  Unary* ListTopics(Context* context, const Bytes* request, Bytes* response) override {
    UnaryCall* call = NewCall("ListTopics", context, request, response);
    return ServeWithBroker<v1::ListTopicsRequest>(call, *request, CheckListTopics, postkeeper::ListTopics);
  }
  Unary* UpdateTopic(Context* context, const Bytes* request, Bytes* response) override {
    UnaryCall* call = NewCall("UpdateTopic", context, request, response);
    return ServeAtOwner<v1::UpdateTopicRequest>(call, *request, SafeWithEtag(call, CheckUpdateTopic),
                                                postkeeper::UpdateTopic);
  }
  Unary* DeleteTopic(Context* context, const Bytes* request, Bytes* response) override {
    UnaryCall* call = NewCall("DeleteTopic", context, request, response);
    return ServeAtOwner<v1::DeleteTopicRequest>(call, *request, SafeIfMayBeMissing(call, CheckDeleteTopic),
                                                postkeeper::DeleteTopic);
  }

  Unary* CreateSubscription(Context* context, const Bytes* request, Bytes* response) override {
    return Refuse("CreateSubscription", context, request, response);
  }
  Unary* GetSubscription(Context* context, const Bytes* request, Bytes* response) override {
    return Refuse("GetSubscription", context, request, response);
  }
  Unary* ListSubscriptions(Context* context, const Bytes* request, Bytes* response) override {
    return Refuse("ListSubscriptions", context, request, response);
  }
  Unary* UpdateSubscription(Context* context, const Bytes* request, Bytes* response) override {
    return Refuse("UpdateSubscription", context, request, response);
  }
  Unary* DeleteSubscription(Context* context, const Bytes* request, Bytes* response) override {
    return Refuse("DeleteSubscription", context, request, response);
  }

  Unary* PurgeQueue(Context* context, const Bytes* request, Bytes* response) override {
    UnaryCall* call = NewCall("PurgeQueue", context, request, response);
    Unary* reactor = call->reactor();
    if (const auto purge = ReadRequest<v1::PurgeQueueRequest>(call, *request, CheckPurgeQueue)) {
      RunOnQueue(call, purge->queue, IfMissing::kFail, purge->leased_too, Purge);
    }
    return reactor;
  }
  Unary* GetStats(Context* context, const Bytes* request, Bytes* response) override {
    UnaryCall* call = NewCall("GetStats", context, request, response);
    Unary* reactor = call->reactor();
    if (const auto source = ReadRequest<v1::GetStatsRequest>(call, *request, CheckGetStats)) {
      RunOnQueue(call, *source, IfMissing::kFail, *source, postkeeper::GetStats);
    }
    return reactor;
  }

 private:
  UnaryCall* NewCall(std::string_view method, Context* context, const Bytes* request, Bytes* response) {
    return new UnaryCall(desk_, {kAdminServiceName, method, *context, *request, *response});
  }
  Unary* Refuse(std::string_view method, Context* context, const Bytes* request, Bytes* response) {
    UnaryCall* call = NewCall(method, context, request, response);
    Unary* reactor = call->reactor();
    call->Fail(MethodNotServed(Cat(kAdminServiceName, ".", method)));
    return reactor;
  }

  Desk& desk_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeAdminService(Desk& desk) { return std::make_unique<AdminService>(desk); }

}  // namespace postkeeper
