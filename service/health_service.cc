#include "service/health_service.h"

#include <optional>
#include <utility>
#include <vector>

#include "grpc/health/v1/health.grpc.pb.h"
#include "service/raw_service.h"
#include "service/stream_call.h"
#include "service/unary_call.h"

namespace postkeeper {

void Health::Set(bool is_ready, bool is_live) {
  const bool was_ready = is_ready_.exchange(is_ready);
  const bool was_live = is_live_.exchange(is_live);
  if (was_ready == is_ready && was_live == is_live) return;
  std::vector<std::shared_ptr<Watcher>> watchers;
  {
    absl::MutexLock lock(&mutex_);
    watchers.assign(watchers_.begin(), watchers_.end());
  }
  for (const auto& watcher : watchers) watcher->Look();
}

Health::Status Health::Of(std::string_view service) const {
  const auto status = [](bool is_serving) { return is_serving ? Status::kServing : Status::kNotServing; };
  if (service == "liveness") return status(is_live_);
  const bool is_ours = service.empty() || service == kMessageServiceName || service == kAdminServiceName ||
                       service == kClusterServiceName;
  return is_ours ? status(is_ready_) : Status::kUnknownService;
}

bool Health::Add(const std::shared_ptr<Watcher>& watcher) {
  absl::MutexLock lock(&mutex_);
  if (!is_closed_) watchers_.insert(watcher);
  return !is_closed_;
}

void Health::Remove(const std::shared_ptr<Watcher>& watcher) {
  absl::MutexLock lock(&mutex_);
  watchers_.erase(watcher);
}

void Health::Close() {
  absl::flat_hash_set<std::shared_ptr<Watcher>> watchers;
  {
    absl::MutexLock lock(&mutex_);
    is_closed_ = true;
    watchers = std::exchange(watchers_, {});
  }
  for (const auto& watcher : watchers) watcher->Stop();
}

namespace {

namespace wire = grpc::health::v1;

grpc::Slice Encode(Health::Status status) {
  wire::HealthCheckResponse response;
  switch (status) {
    case Health::Status::kServing:
      response.set_status(wire::HealthCheckResponse::SERVING);
      break;
    case Health::Status::kNotServing:
      response.set_status(wire::HealthCheckResponse::NOT_SERVING);
      break;
    case Health::Status::kUnknownService:
      response.set_status(wire::HealthCheckResponse::SERVICE_UNKNOWN);
      break;
  }
  return EncodeMessage(response);
}

// Sends the status at once, and whenever it has changed.
class WatchStream final : public StreamCall<grpc::ServerWriteReactor<grpc::ByteBuffer>>, public Health::Watcher {
 public:
  WatchStream(Desk& desk, grpc::CallbackServerContext& context, Health& health)
      : StreamCall(desk, kHealthServiceName, "Watch", context), health_(health) {}

  void Start(const grpc::ByteBuffer& bytes) {
    Hold();
    metrics_.MessageReceived();
    wire::HealthCheckRequest request;
    if (absl::Status status = DecodeRequest(bytes, "HealthCheckRequest", request); !status.ok()) return End(status);
    service_ = request.service();
    if (absl::Status status = desk_.gate.EnterStream(Self()); !status.ok()) return End(status);
    if (!health_.Add(Self())) return End(ReplicaDraining());
    Pump();
  }

  void Look() override { Pump(); }
  void Stop() override { End(ReplicaDraining()); }
  // It goes on while the server drains: it is what tells so. Close ends it.
  void AskToLeave(std::string_view, Duration) override {}

 private:
  std::shared_ptr<WatchStream> Self() { return std::static_pointer_cast<WatchStream>(shared_from_this()); }

  bool TakeFrame(grpc::Slice& frame) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const Health::Status status = health_.Of(service_);
    if (told_ == status) return false;
    told_ = status;
    frame = Encode(status);
    return true;
  }

  void OnEnding() override { health_.Remove(Self()); }

  Health& health_;
  std::string service_;  // constant after Start
  std::optional<Health::Status> told_ ABSL_GUARDED_BY(mutex_);
};

using Generated = wire::Health;
using RawHealthService = RawService<Generated::Service, Generated::WithRawCallbackMethod_Check,
                                    Generated::WithRawCallbackMethod_Watch>::Type;

class HealthService final : public RawHealthService {
  using Context = grpc::CallbackServerContext;
  using Bytes = grpc::ByteBuffer;

 public:
  HealthService(Desk& desk, Health& health) : desk_(desk), health_(health) {}

  grpc::ServerUnaryReactor* Check(Context* context, const Bytes* bytes, Bytes* response) override {
    auto* call = new UnaryCall(desk_, {kHealthServiceName, "Check", *context, *bytes, *response});
    grpc::ServerUnaryReactor* reactor = call->reactor();
    wire::HealthCheckRequest request;
    if (absl::Status status = DecodeRequest(*bytes, "HealthCheckRequest", request); !status.ok()) {
      call->Fail(status);
      return reactor;
    }
    const Health::Status status = health_.Of(request.service());
    if (status == Health::Status::kUnknownService) {
      call->FailPlainly(grpc::Status(grpc::StatusCode::NOT_FOUND, "no such service"));
    } else {
      call->Answer(Encode(status));
    }
    return reactor;
  }

  grpc::ServerWriteReactor<Bytes>* Watch(Context* context, const Bytes* request) override {
    const auto stream = std::make_shared<WatchStream>(desk_, *context, health_);
    stream->Start(*request);
    return stream.get();
  }

 private:
  Desk& desk_;
  Health& health_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeHealthService(Desk& desk, Health& health) {
  return std::make_unique<HealthService>(desk, health);
}

}  // namespace postkeeper
