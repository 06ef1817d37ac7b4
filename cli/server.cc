#include "cli/server.h"

#include <absl/strings/str_format.h>
#include <google/protobuf/wrappers.pb.h>
#include <grpcpp/generic/generic_stub.h>

#include <future>
#include <map>

#include "cli/build_values.h"
#include "cli/connection.h"
#include "cli/output.h"
#include "cli/protos.h"
#include "cli/text.h"
#include "postkeeper/v1/admin.grpc.pb.h"
#include "postkeeper/v1/cluster.grpc.pb.h"

namespace postkeeper::cli {
namespace {

// grpc.health.v1.HealthCheckResponse.ServingStatus.
std::string ServingStatusName(int status) {
  constexpr const char* kNames[] = {"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"};
  return status >= 0 && status < 4 ? kNames[status] : Cat("status ", status);
}

constexpr int kServing = 1;

// health.proto is not packaged for C++. Its request has one field, a string with number 1, and its response one, an
// enum with number 1: on the wire these are a StringValue and an Int32Value.
grpc::Status CheckHealth(Connection& connection, const std::string& service, int& serving_status) {
  google::protobuf::StringValue request;
  google::protobuf::Int32Value response;
  request.set_value(service);
  grpc::TemplatedGenericStub<google::protobuf::StringValue, google::protobuf::Int32Value> stub(connection.channel());
  const grpc::Status status = connection.Call([&](grpc::ClientContext* call) {
    std::promise<grpc::Status> answer;
    stub.UnaryCall(call, "/grpc.health.v1.Health/Check", grpc::StubOptions(), &request, &response,
                   [&answer](grpc::Status result) { answer.set_value(std::move(result)); });
    return answer.get_future().get();
  });
  serving_status = response.value();
  return status;
}

// One page for people; its table is aligned for itself.
void ShowReplicas(const v1::ListReplicasResponse& page, bool is_first, Output& out) {
  std::vector<std::vector<std::string>> rows;
  if (is_first) rows.push_back({"REPLICA", "ADDRESS", "VERSION", "STARTED", "OWNS"});
  for (const v1::Replica& replica : page.replicas()) {
    rows.push_back({ForTerminal(replica.name(), false), ForTerminal(replica.address(), false),
                    ForTerminal(replica.version(), false), FormatTime(FromProto(replica.start_time())),
                    Cat(replica.sources_owned())});
  }
  out.Table(rows);
}

JsonObject ToJson(const v1::Replica& replica) {
  JsonObject object;
  object.Add("name", replica.name()).Add("address", replica.address()).Add("version", replica.version());
  object.Add("start_time", FormatTime(FromProto(replica.start_time())));
  object.Add("sources_owned", std::int64_t{replica.sources_owned()});
  return object;
}

}  // namespace

ExitCode ShowStats(const std::string& source, CommandContext& context) {
  v1::AdminService::Stub stub(context.connection.channel());
  v1::GetStatsRequest request;
  v1::GetStatsResponse stats;
  request.set_source(source);
  const grpc::Status status =
      context.connection.Call([&](grpc::ClientContext* call) { return stub.GetStats(call, request, &stats); });
  if (!status.ok()) {
    const Failure failure = context.connection.Explain(status, Cat("stats of ", source));
    return context.Fail(failure.exit_code, failure.text);
  }
  if (context.out.is_json()) {
    JsonObject object;
    object.Add("source", source);
    object.Add("ready", std::int64_t{stats.ready()}).Add("delayed", std::int64_t{stats.delayed()});
    object.Add("leased", std::int64_t{stats.leased()}).Add("bytes", std::int64_t{stats.bytes()});
    object.Add("consumers", std::int64_t{stats.consumers()});
    if (stats.has_oldest_age()) {
      object.Add("oldest_age_seconds", std::chrono::duration<double>(FromProto(stats.oldest_age())).count());
    }
    object.Add("enqueue_rate", stats.enqueue_rate()).Add("settle_rate", stats.settle_rate());
    context.out.Json(object);
    return ExitCode::kDone;
  }
  context.out.Fields({{"ready", Cat(stats.ready())},
                      {"delayed", Cat(stats.delayed())},
                      {"leased", Cat(stats.leased())},
                      {"bytes", FormatBytes(stats.bytes())},
                      {"consumers", Cat(stats.consumers())},
                      {"oldest", stats.has_oldest_age() ? FormatDuration(FromProto(stats.oldest_age())) : "-"},
                      {"enqueued", absl::StrFormat("%.1f/s", stats.enqueue_rate())},
                      {"settled", absl::StrFormat("%.1f/s", stats.settle_rate())}});
  return ExitCode::kDone;
}

ExitCode ShowHealth(const std::string& service, CommandContext& context) {
  int serving_status = 0;
  const grpc::Status status = CheckHealth(context.connection, service, serving_status);
  if (status.error_code() == grpc::StatusCode::NOT_FOUND) {
    return context.Fail(ExitCode::kNotFound,
                        Cat("the server at ", context.connection.options().address, " has no service '", service,
                            "'. For the whole server: postkeeper health"));
  }
  if (!status.ok()) {
    const Failure failure = context.connection.Explain(status, "health");
    return context.Fail(failure.exit_code, failure.text);
  }
  const std::string name = ServingStatusName(serving_status);
  if (context.out.is_json()) {
    context.out.Json(JsonObject().Add("service", service).Add("status", name));
  } else {
    context.out.Line(name);
  }
  return serving_status == kServing ? ExitCode::kDone : ExitCode::kFailed;
}

std::string VersionText() {
  return Cat("postkeeper ", kVersion, "\nAPI: ", kApiVersion, "\nstore format: ", kStoreFormat, "\n");
}

ExitCode ShowVersion(CommandContext& context) {
  if (context.out.is_json()) {
    JsonObject object;
    object.Add("version", kVersion).Add("api", kApiVersion).Add("store_format", std::int64_t{kStoreFormat});
    context.out.Json(object);
  } else {
    context.out.Body(VersionText());
  }
  return ExitCode::kDone;
}

ExitCode ShowServer(CommandContext& context) {
  v1::ClusterService::Stub stub(context.connection.channel());
  v1::GetServerInfoResponse info;
  const grpc::Status status = context.connection.Call(
      [&](grpc::ClientContext* call) { return stub.GetServerInfo(call, v1::GetServerInfoRequest(), &info); });
  if (!status.ok()) {
    const Failure failure = context.connection.Explain(status, "server");
    return context.Fail(failure.exit_code, failure.text);
  }
  const std::map<std::string, std::int64_t> limits(info.limits().begin(), info.limits().end());
  if (context.out.is_json()) {
    JsonObject limits_object;
    for (const auto& [name, value] : limits) limits_object.Add(name, value);
    JsonObject object;
    object.Add("version", info.version()).Add("replica", info.replica());
    object.Add("store_format", std::int64_t{info.store_format()}).Add("limits", limits_object);
    object.AddList("unserved", {info.unserved().begin(), info.unserved().end()});
    context.out.Json(object);
    return ExitCode::kDone;
  }
  std::vector<std::pair<std::string, std::string>> fields = {{"address", context.connection.options().address},
                                                             {"version", ForTerminal(info.version(), false)},
                                                             {"replica", ForTerminal(info.replica(), false)},
                                                             {"store format", Cat(info.store_format())}};
  for (const auto& [name, value] : limits) {
    fields.emplace_back(Cat("limit ", ForTerminal(name, false)), Cat(value));
  }
  for (const std::string& name : info.unserved()) fields.emplace_back("not served", ForTerminal(name, false));
  context.out.Fields(fields);
  return ExitCode::kDone;
}

ExitCode ListReplicas(CommandContext& context) {
  v1::ClusterService::Stub stub(context.connection.channel());
  v1::ListReplicasRequest request;
  request.set_page_size(1000);
  for (bool is_first = true;; is_first = false) {
    v1::ListReplicasResponse page;
    const grpc::Status status =
        context.connection.Call([&](grpc::ClientContext* call) { return stub.ListReplicas(call, request, &page); });
    if (!status.ok()) {
      const Failure failure = context.connection.Explain(status, "list replicas");
      return context.Fail(failure.exit_code, failure.text);
    }
    if (context.out.is_json()) {
      for (const v1::Replica& replica : page.replicas()) context.out.Json(ToJson(replica));
    } else {
      ShowReplicas(page, is_first, context.out);
    }
    if (page.next_page_token().empty()) return ExitCode::kDone;
    request.set_page_token(page.next_page_token());
  }
}

}  // namespace postkeeper::cli
