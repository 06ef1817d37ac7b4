#include "cli/admin.h"

#include <utility>
#include <vector>

#include "cli/connection.h"
#include "cli/output.h"
#include "cli/protos.h"
#include "cli/text.h"
#include "postkeeper/v1/admin.grpc.pb.h"

namespace postkeeper::cli {
namespace {

// Calls one method of AdminService; on failure says so on stderr: with `if_missing`, if that is given and fits.
template <typename Request, typename Response>
ExitCode CallAdmin(CommandContext& context, std::string_view what,
                   grpc::Status (v1::AdminService::Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                   const Request& request, Response& response, std::string_view if_missing = "") {
  v1::AdminService::Stub stub(context.connection.channel());
  const grpc::Status status =
      context.connection.Call([&](grpc::ClientContext* call) { return (stub.*method)(call, request, &response); });
  if (status.ok()) return ExitCode::kDone;
  const Failure failure = context.connection.Explain(status, what);
  if (failure.exit_code == ExitCode::kNotFound && !if_missing.empty()) {
    return context.Fail(failure.exit_code, Cat(what, ": ", if_missing));
  }
  return context.Fail(failure.exit_code, failure.text);
}

// Sets one field, and names it in the mask if there is one.
template <typename Value, typename Setter>
void SetField(const std::optional<Value>& value, const char* name, google::protobuf::FieldMask* mask, Setter set) {
  if (!value.has_value()) return;
  set(*value);
  if (mask != nullptr) mask->add_paths(name);
}

void Fill(v1::Queue& queue, const QueueSettings& settings, google::protobuf::FieldMask* mask) {
  queue.set_name(settings.name);
  const auto set = [mask](const auto& value, const char* name, auto setter) { SetField(value, name, mask, setter); };
  set(settings.lease_duration, "lease_duration", [&](Duration v) { *queue.mutable_lease_duration() = ToProto(v); });
  set(settings.max_attempts, "max_attempts", [&](int v) { queue.set_max_attempts(v); });
  set(settings.dead_letter_queue, "dead_letter_queue", [&](const auto& v) { queue.set_dead_letter_queue(v); });
  set(settings.retry_backoff, "retry_backoff", [&](Duration v) { *queue.mutable_retry_backoff() = ToProto(v); });
  set(settings.retry_backoff_max, "retry_backoff_max",
      [&](Duration v) { *queue.mutable_retry_backoff_max() = ToProto(v); });
  set(settings.max_messages, "max_messages", [&](std::int64_t v) { queue.set_max_messages(v); });
  set(settings.max_bytes, "max_bytes", [&](std::int64_t v) { queue.set_max_bytes(v); });
}

void Fill(v1::Topic& topic, const TopicSettings& settings, google::protobuf::FieldMask* mask) {
  topic.set_name(settings.name);
  const auto set = [mask](const auto& value, const char* name, auto setter) { SetField(value, name, mask, setter); };
  set(settings.retention, "retention", [&](Duration v) { *topic.mutable_retention() = ToProto(v); });
  set(settings.max_messages, "max_messages", [&](std::int64_t v) { topic.set_max_messages(v); });
  set(settings.max_bytes, "max_bytes", [&](std::int64_t v) { topic.set_max_bytes(v); });
}

template <typename Proto>
std::string DurationOf(const Proto& proto) {
  return FormatDuration(FromProto(proto));
}

// A server that does not serve a setting leaves it 0.
std::string CountOrNone(std::int64_t count) { return count == 0 ? "-" : Cat(count); }

JsonObject ToJson(const v1::Queue& queue) {
  JsonObject object;
  object.Add("name", queue.name()).Add("uid", queue.uid()).Add("etag", queue.etag());
  object.Add("create_time", FormatTime(FromProto(queue.create_time())));
  object.Add("lease_duration", DurationOf(queue.lease_duration()));
  object.Add("max_attempts", std::int64_t{queue.max_attempts()});
  object.Add("dead_letter_queue", queue.dead_letter_queue());
  object.Add("retry_backoff", DurationOf(queue.retry_backoff()));
  object.Add("retry_backoff_max", DurationOf(queue.retry_backoff_max()));
  object.Add("max_messages", std::int64_t{queue.max_messages()}).Add("max_bytes", std::int64_t{queue.max_bytes()});
  return object;
}

JsonObject ToJson(const v1::Topic& topic) {
  JsonObject object;
  object.Add("name", topic.name()).Add("uid", topic.uid()).Add("etag", topic.etag());
  object.Add("create_time", FormatTime(FromProto(topic.create_time())));
  object.Add("retention", DurationOf(topic.retention()));
  object.Add("max_messages", std::int64_t{topic.max_messages()}).Add("max_bytes", std::int64_t{topic.max_bytes()});
  return object;
}

std::vector<std::pair<std::string, std::string>> ToFields(const v1::Queue& queue) {
  const std::string dead_letters = queue.dead_letter_queue().empty() ? "none" : queue.dead_letter_queue();
  return {{"name", queue.name()},
          {"created", FormatTime(FromProto(queue.create_time()))},
          {"lease duration", DurationOf(queue.lease_duration())},
          {"max attempts", CountOrNone(queue.max_attempts())},
          {"dead-letter queue", dead_letters},
          {"retry backoff", Cat(DurationOf(queue.retry_backoff()), " to ", DurationOf(queue.retry_backoff_max()))},
          {"max messages", Cat(queue.max_messages())},
          {"max bytes", FormatBytes(queue.max_bytes())},
          {"uid", queue.uid()},
          {"etag", queue.etag()}};
}

std::vector<std::pair<std::string, std::string>> ToFields(const v1::Topic& topic) {
  return {{"name", topic.name()},
          {"created", FormatTime(FromProto(topic.create_time()))},
          {"retention", DurationOf(topic.retention())},
          {"max messages", Cat(topic.max_messages())},
          {"max bytes", FormatBytes(topic.max_bytes())},
          {"uid", topic.uid()},
          {"etag", topic.etag()}};
}

template <typename Proto>
void Show(CommandContext& context, const Proto& proto) {
  if (context.out.is_json()) {
    context.out.Json(ToJson(proto));
    return;
  }
  auto fields = ToFields(proto);
  for (auto& [name, value] : fields) value = ForTerminal(value, false);
  context.out.Fields(fields);
}

template <typename Proto>
void ShowChange(CommandContext& context, const Proto& proto, std::string_view what) {
  if (context.out.is_json()) {
    context.out.Json(ToJson(proto));
  } else if (!context.is_quiet) {
    context.out.Line(Cat(what, " ", ForTerminal(proto.name(), false)));
  }
}

constexpr std::string_view kNothingToDelete = "it is not there. With --if-exists that is no failure";

void ShowDeletion(CommandContext& context, const DeleteOptions& options) {
  if (context.out.is_json()) {
    context.out.Json(JsonObject().Add("deleted", options.name));
  } else if (!context.is_quiet) {
    // The service does not say whether it was there.
    context.out.Line(options.allows_missing ? Cat(options.name, " is gone") : Cat("deleted ", options.name));
  }
}

template <typename Settings>
ExitCode NothingToUpdate(CommandContext& context, const Settings& settings, std::string_view kind) {
  return context.Fail(ExitCode::kUsage, Cat("update ", kind, " ", settings.name,
                                            ": no setting was given. See: postkeeper ", kind, " update --help"));
}

std::string ParentOf(const std::string& name_space) {
  return name_space.empty() || name_space.starts_with("namespaces/") ? name_space : Cat("namespaces/", name_space);
}

// All pages, each shown as it comes; the table of a page is aligned for itself.
template <typename Request, typename Response, typename GetItems, typename ToRow>
ExitCode List(CommandContext& context, std::string_view what, const std::string& name_space,
              grpc::Status (v1::AdminService::Stub::*method)(grpc::ClientContext*, const Request&, Response*),
              GetItems items, std::vector<std::string> heading, ToRow to_row) {
  Request request;
  request.set_parent(ParentOf(name_space));
  request.set_page_size(1000);
  for (bool is_first = true;; is_first = false) {
    Response response;
    const ExitCode exit_code = CallAdmin(context, what, method, request, response);
    if (exit_code != ExitCode::kDone) return exit_code;
    std::vector<std::vector<std::string>> rows;
    if (is_first) rows.push_back(heading);
    for (const auto& item : items(response)) {
      if (context.out.is_json()) {
        context.out.Json(ToJson(item));
      } else {
        rows.push_back(to_row(item));
      }
    }
    if (!context.out.is_json() && items(response).size() > 0) context.out.Table(rows);
    if (is_first && items(response).empty()) context.Note(Cat(what, ": there are none"));
    if (response.next_page_token().empty()) return ExitCode::kDone;
    request.set_page_token(response.next_page_token());
  }
}

}  // namespace

ExitCode CreateQueue(const QueueSettings& settings, CommandContext& context) {
  v1::CreateQueueRequest request;
  v1::CreateQueueResponse response;
  Fill(*request.mutable_queue(), settings, nullptr);
  const ExitCode exit_code =
      CallAdmin(context, Cat("create queue ", settings.name), &v1::AdminService::Stub::CreateQueue, request, response);
  if (exit_code == ExitCode::kDone) ShowChange(context, response.queue(), "created");
  return exit_code;
}

ExitCode UpdateQueue(const QueueSettings& settings, const UpdateOptions& options, CommandContext& context) {
  v1::UpdateQueueRequest request;
  v1::UpdateQueueResponse response;
  Fill(*request.mutable_queue(), settings, request.mutable_update_mask());
  if (request.update_mask().paths().empty() && !options.creates_if_missing) {
    return NothingToUpdate(context, settings, "queue");
  }
  request.mutable_queue()->set_etag(options.etag);
  request.set_allow_missing(options.creates_if_missing);
  const ExitCode exit_code =
      CallAdmin(context, Cat("update queue ", settings.name), &v1::AdminService::Stub::UpdateQueue, request, response);
  if (exit_code == ExitCode::kDone) ShowChange(context, response.queue(), "updated");
  return exit_code;
}

ExitCode ShowQueue(const std::string& name, CommandContext& context) {
  v1::GetQueueRequest request;
  v1::GetQueueResponse response;
  request.set_name(name);
  const ExitCode exit_code =
      CallAdmin(context, Cat("show queue ", name), &v1::AdminService::Stub::GetQueue, request, response);
  if (exit_code == ExitCode::kDone) Show(context, response.queue());
  return exit_code;
}

ExitCode ListQueues(const std::string& name_space, CommandContext& context) {
  return List(
      context, "list queues", name_space, &v1::AdminService::Stub::ListQueues,
      [](const v1::ListQueuesResponse& response) -> const auto& { return response.queues(); },
      {"QUEUE", "LEASE", "ATTEMPTS", "MAX MESSAGES", "MAX BYTES", "DEAD LETTERS"},
      [](const v1::Queue& queue) -> std::vector<std::string> {
        return {ForTerminal(queue.name(), false),
                DurationOf(queue.lease_duration()),
                CountOrNone(queue.max_attempts()),
                Cat(queue.max_messages()),
                FormatBytes(queue.max_bytes()),
                queue.dead_letter_queue().empty() ? "-" : ForTerminal(queue.dead_letter_queue(), false)};
      });
}

ExitCode DeleteQueue(const DeleteOptions& options, CommandContext& context) {
  v1::DeleteQueueRequest request;
  v1::DeleteQueueResponse response;
  request.set_name(options.name);
  request.set_etag(options.etag);
  request.set_allow_missing(options.allows_missing);
  const ExitCode exit_code = CallAdmin(context, Cat("delete queue ", options.name),
                                       &v1::AdminService::Stub::DeleteQueue, request, response, kNothingToDelete);
  if (exit_code == ExitCode::kDone) ShowDeletion(context, options);
  return exit_code;
}

ExitCode PurgeQueue(const std::string& name, bool takes_leased_too, CommandContext& context) {
  v1::PurgeQueueRequest request;
  v1::PurgeQueueResponse response;
  request.set_name(name);
  request.set_leased_too(takes_leased_too);
  const ExitCode exit_code =
      CallAdmin(context, Cat("purge queue ", name), &v1::AdminService::Stub::PurgeQueue, request, response);
  if (exit_code != ExitCode::kDone) return exit_code;
  if (context.out.is_json()) {
    context.out.Json(JsonObject().Add("queue", name).Add("purged", std::int64_t{response.purged()}));
  } else if (!context.is_quiet) {
    context.out.Line(Cat("purged ", Counted(response.purged(), "message"), " from ", name));
  }
  return ExitCode::kDone;
}

ExitCode CreateTopic(const TopicSettings& settings, CommandContext& context) {
  v1::CreateTopicRequest request;
  v1::CreateTopicResponse response;
  Fill(*request.mutable_topic(), settings, nullptr);
  const ExitCode exit_code =
      CallAdmin(context, Cat("create topic ", settings.name), &v1::AdminService::Stub::CreateTopic, request, response);
  if (exit_code == ExitCode::kDone) ShowChange(context, response.topic(), "created");
  return exit_code;
}

ExitCode UpdateTopic(const TopicSettings& settings, const UpdateOptions& options, CommandContext& context) {
  v1::UpdateTopicRequest request;
  v1::UpdateTopicResponse response;
  Fill(*request.mutable_topic(), settings, request.mutable_update_mask());
  if (request.update_mask().paths().empty() && !options.creates_if_missing) {
    return NothingToUpdate(context, settings, "topic");
  }
  request.mutable_topic()->set_etag(options.etag);
  request.set_allow_missing(options.creates_if_missing);
  const ExitCode exit_code =
      CallAdmin(context, Cat("update topic ", settings.name), &v1::AdminService::Stub::UpdateTopic, request, response);
  if (exit_code == ExitCode::kDone) ShowChange(context, response.topic(), "updated");
  return exit_code;
}

ExitCode ShowTopic(const std::string& name, CommandContext& context) {
  v1::GetTopicRequest request;
  v1::GetTopicResponse response;
  request.set_name(name);
  const ExitCode exit_code =
      CallAdmin(context, Cat("show topic ", name), &v1::AdminService::Stub::GetTopic, request, response);
  if (exit_code == ExitCode::kDone) Show(context, response.topic());
  return exit_code;
}

ExitCode ListTopics(const std::string& name_space, CommandContext& context) {
  return List(
      context, "list topics", name_space, &v1::AdminService::Stub::ListTopics,
      [](const v1::ListTopicsResponse& response) -> const auto& { return response.topics(); },
      {"TOPIC", "RETENTION", "MAX MESSAGES", "MAX BYTES"},
      [](const v1::Topic& topic) -> std::vector<std::string> {
        return {ForTerminal(topic.name(), false), DurationOf(topic.retention()), Cat(topic.max_messages()),
                FormatBytes(topic.max_bytes())};
      });
}

ExitCode DeleteTopic(const DeleteOptions& options, CommandContext& context) {
  v1::DeleteTopicRequest request;
  v1::DeleteTopicResponse response;
  request.set_name(options.name);
  request.set_etag(options.etag);
  request.set_allow_missing(options.allows_missing);
  const ExitCode exit_code = CallAdmin(context, Cat("delete topic ", options.name),
                                       &v1::AdminService::Stub::DeleteTopic, request, response, kNothingToDelete);
  if (exit_code == ExitCode::kDone) ShowDeletion(context, options);
  return exit_code;
}

}  // namespace postkeeper::cli
