#include "service/cluster_service.h"

#include <utility>

#include "postkeeper/v1/cluster.grpc.pb.h"
#include "service/raw_service.h"
#include "service/unary_call.h"
#include "service/unserved.h"
#include "zkstore/layout.h"

namespace postkeeper {
namespace {

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
    auto* call = NewCall("ListReplicas", context, request, response);
    Unary* reactor = call->reactor();
    call->Fail(MethodNotServed(Cat(kClusterServiceName, ".ListReplicas")));
    return reactor;
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
