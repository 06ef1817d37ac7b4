#include "service/cluster_service.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "postkeeper/v1/cluster.grpc.pb.h"
#include "service/raw_service.h"
#include "service/unary_call.h"
#include "service/unserved.h"
#include "zkstore/layout.h"

namespace postkeeper {
namespace {

// A replica under the name that the API gives it.
struct NamedReplica {
  std::string name;
  ReplicaInfo info;
};

// The list in the order of names, from behind `after` on; ZOOKEEPER_UNAVAILABLE if it was last read longer ago than a
// session lasts: who was alive then need not be now.
absl::StatusOr<std::vector<NamedReplica>> ReplicasBehind(const Broker& broker, const std::string& after) {
  std::optional<Membership::View> view = broker.membership().view();
  if (!view || view->age > broker.context().client.session().timeout) {
    return MakeError(Reason::kZookeeperUnavailable, "there is no connection to ZooKeeper, which knows the replicas");
  }
  std::vector<NamedReplica> named;
  for (ReplicaInfo& info : view->replicas) {
    std::string name = EncodeProcessId(info.process);
    if (name > after) named.push_back({std::move(name), std::move(info)});
  }
  std::sort(named.begin(), named.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return named;
}

// A page of the largest size stays below 1 MiB, since an entry takes some 100 bytes (an address at most 300).
Task<absl::StatusOr<v1::ListReplicasResponse>> ListReplicas(Broker& broker, CheckedListReplicas list) {
  absl::StatusOr<std::vector<NamedReplica>> replicas = ReplicasBehind(broker, list.after);
  if (!replicas.ok()) co_return replicas.status();
  const absl::StatusOr<std::shared_ptr<const OwnerCensus::Counts>> owned = co_await broker.census().Take();
  if (!owned.ok()) co_return owned.status();
  v1::ListReplicasResponse response;
  const auto page_size = static_cast<std::size_t>(list.page_size);
  if (replicas->size() > page_size) {
    replicas->resize(page_size);
    response.set_next_page_token(EncodePageToken(kReplicasList, replicas->back().name));
  }
  for (const NamedReplica& replica : *replicas) {
    v1::Replica& to = *response.add_replicas();
    to.set_name(replica.name);
    to.set_address(replica.info.address);
    to.set_version(replica.info.version);
    const std::int64_t ms = replica.info.start_time.time_since_epoch().count();
    to.mutable_start_time()->set_seconds(ms / 1000);
    to.mutable_start_time()->set_nanos(static_cast<std::int32_t>(ms % 1000 * 1'000'000));
    const auto found = (*owned)->find(replica.info.process);
    to.set_sources_owned(found == (*owned)->end() ? 0 : found->second);
  }
  co_return response;
}

using Generated = v1::ClusterService;
using RawClusterService = RawService<Generated::Service, Generated::WithRawCallbackMethod_GetServerInfo,
                                     Generated::WithRawCallbackMethod_ListReplicas>::Type;

class ClusterService final : public RawClusterService {
  using Context = grpc::CallbackServerContext;
  using Bytes = grpc::ByteBuffer;
  using Unary = grpc::ServerUnaryReactor;

 public:
  ClusterService(Desk& desk, const ServerInfo& info) : desk_(desk) {
    answer_.set_version(info.version);
    answer_.set_replica(desk.replica);
    answer_.set_store_format(Layout::kFormatVersion);
    answer_.mutable_limits()->insert(info.limits.begin(), info.limits.end());
    for (const std::string_view name : Unserved()) answer_.add_unserved(std::string(name));
  }

  // Needs no ZooKeeper.
  Unary* GetServerInfo(Context* context, const Bytes* request, Bytes* response) override {
    auto* call = NewCall("GetServerInfo", context, request, response);
    Unary* reactor = call->reactor();
    v1::GetServerInfoRequest asked;
    absl::Status status = DecodeRequest(*request, "GetServerInfoRequest", asked);
    if (status.ok()) status = CheckGetServerInfo(asked);
    if (status.ok()) {
      call->Answer(EncodeMessage(answer_));
    } else {
      call->Fail(status);
    }
    return reactor;
  }

  Unary* ListReplicas(Context* context, const Bytes* request, Bytes* response) override {
    UnaryCall* call = NewCall("ListReplicas", context, request, response);
    return ServeWithBroker<v1::ListReplicasRequest>(call, *request, CheckListReplicas, postkeeper::ListReplicas);
  }

 private:
  UnaryCall* NewCall(std::string_view method, Context* context, const Bytes* request, Bytes* response) {
    return new UnaryCall(desk_, {kClusterServiceName, method, *context, *request, *response});
  }

  Desk& desk_;
  v1::GetServerInfoResponse answer_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeClusterService(Desk& desk, ServerInfo info) {
  return std::make_unique<ClusterService>(desk, info);
}

}  // namespace postkeeper
