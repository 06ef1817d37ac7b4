#include "service/scaler_service.h"

#include <algorithm>
#include <asio/post.hpp>
#include <cmath>
#include <map>
#include <utility>

#include "keda/externalscaler.grpc.pb.h"
#include "service/raw_service.h"
#include "service/scaling.h"
#include "service/stream_call.h"
#include "service/unary_call.h"
#include "zkstore/signal.h"

namespace postkeeper {
namespace {

namespace wire = externalscaler;

// How often an open stream looks whether there is work.
constexpr Duration kLookEvery = std::chrono::seconds(1);

absl::StatusOr<ScaleTarget> CheckRef(const wire::ScaledObjectRef& ref) {
  return ReadScaleTarget({ref.scalermetadata().begin(), ref.scalermetadata().end()});
}

struct CheckedGetMetrics {
  ScaleTarget target;
  std::string metric_name;
};

absl::StatusOr<CheckedGetMetrics> CheckGetMetrics(const wire::GetMetricsRequest& request) {
  absl::StatusOr<ScaleTarget> target = CheckRef(request.scaledobjectref());
  if (!target.ok()) return target.status();
  const bool is_named = !request.metricname().empty();
  std::string name(is_named ? std::string_view(request.metricname()) : MetricNameOf(target->by));
  return CheckedGetMetrics{*std::move(target), std::move(name)};
}

wire::GetMetricSpecResponse SpecOf(const ScaleTarget& target) {
  wire::GetMetricSpecResponse response;
  wire::MetricSpec& spec = *response.add_metricspecs();
  spec.set_metricname(std::string(MetricNameOf(target.by)));
  spec.set_targetsize(std::max<std::int64_t>(std::llround(target.target), 1));
  spec.set_targetsizefloat(target.target);
  return response;
}

Task<absl::StatusOr<wire::IsActiveResponse>> AskIfActive(std::shared_ptr<QueueEngine> queue, ScaleTarget) {
  const absl::StatusOr<QueueEngine::Stats> stats = co_await queue->GetStats();
  if (!stats.ok()) co_return stats.status();
  wire::IsActiveResponse response;
  response.set_result(IsActive(*stats));
  co_return response;
}

Task<absl::StatusOr<wire::GetMetricsResponse>> AskMetrics(std::shared_ptr<QueueEngine> queue,
                                                          CheckedGetMetrics request) {
  const absl::StatusOr<QueueEngine::Stats> stats = co_await queue->GetStats();
  if (!stats.ok()) co_return stats.status();
  const double value = Measure(request.target, *stats);
  wire::GetMetricsResponse response;
  wire::MetricValue& metric = *response.add_metricvalues();
  metric.set_metricname(request.metric_name);
  metric.set_metricvalue(std::llround(std::ceil(value)));
  metric.set_metricvaluefloat(value);
  co_return response;
}

using StreamBase = StreamCall<grpc::ServerWriteReactor<grpc::ByteBuffer>>;

// Looks at the queue from time to time, on its strand, and sends what has changed.
class ActiveStream final : public StreamBase {
 public:
  ActiveStream(Desk& desk, grpc::CallbackServerContext& context)
      : StreamBase(desk, kScalerServiceName, "StreamIsActive", context) {}

  void Start(const grpc::ByteBuffer& bytes) {
    Hold();
    metrics_.MessageReceived();
    wire::ScaledObjectRef ref;
    if (absl::Status status = DecodeRequest(bytes, "ScaledObjectRef", ref); !status.ok()) return End(status);
    absl::StatusOr<ScaleTarget> target = CheckRef(ref);
    if (!target.ok()) return End(target.status());
    if (!Enter()) return;
    target_ = *std::move(target);
    request_ = bytes;
    Spawn(desk_.environment.executor(), Open(Self()));
  }

  void AskToLeave(std::string_view, Duration) override { End(ReplicaDraining()); }

 private:
  std::shared_ptr<ActiveStream> Self() { return std::static_pointer_cast<ActiveStream>(shared_from_this()); }

  Task<void> Open(std::shared_ptr<ActiveStream> self) {
    absl::StatusOr<std::shared_ptr<QueueEngine>> queue = co_await OpenExistingQueue(*broker_, target_.queue);
    if (!queue.ok()) {
      End(queue.status());
      co_return;
    }
    {
      absl::MutexLock lock(&mutex_);
      queue_ = *std::move(queue);
    }
    Spawn(queue_->strand(), Run(std::move(self)));
  }

  Task<void> Run(std::shared_ptr<ActiveStream> self) {
    if (!queue_->is_serving()) {
      LogHandle log(queue_);
      const bool is_elsewhere = co_await RelayIfElsewhere(std::move(log), std::exchange(request_, {}));
      if (const std::shared_ptr<StreamRelay> relay = FindRelay()) relay->HalfClose();
      if (is_elsewhere) co_return;
    }
    wake_.emplace(desk_.environment, queue_->strand());
    while (!IsEnding()) {
      const absl::StatusOr<QueueEngine::Stats> stats = co_await queue_->GetStats();
      if (!stats.ok()) {
        End(stats.status());
        co_return;
      }
      Tell(IsActive(*stats));
      co_await wake_->WaitFor(kLookEvery);
    }
    (void)self;  // keeps this alive
  }

  void Tell(bool is_active) {
    {
      absl::MutexLock lock(&mutex_);
      is_active_ = is_active;
    }
    Pump();
  }

  bool TakeFrame(grpc::Slice& frame) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (is_active_ == told_) return false;
    told_ = is_active_;
    wire::IsActiveResponse response;
    response.set_result(*told_);
    frame = EncodeMessage(response);
    return true;
  }

  void OnEnding() override {
    {
      absl::MutexLock lock(&mutex_);
      if (!queue_) return;  // Run will see it
    }
    asio::post(queue_->strand(), [self = Self()] {
      if (self->wake_) self->wake_->Notify();
    });
  }

  grpc::ByteBuffer request_;
  ScaleTarget target_;                  // constant after Start
  std::shared_ptr<QueueEngine> queue_;  // set once, under the mutex, before the strand is used
  std::optional<Signal> wake_;          // touched only on the strand
  std::optional<bool> is_active_ ABSL_GUARDED_BY(mutex_);
  std::optional<bool> told_ ABSL_GUARDED_BY(mutex_);
};

using Generated = wire::ExternalScaler;
using RawScalerService =
    RawService<Generated::Service, Generated::WithRawCallbackMethod_IsActive,
               Generated::WithRawCallbackMethod_StreamIsActive, Generated::WithRawCallbackMethod_GetMetricSpec,
               Generated::WithRawCallbackMethod_GetMetrics>::Type;

class ScalerService final : public RawScalerService {
  using Context = grpc::CallbackServerContext;
  using Bytes = grpc::ByteBuffer;
  using Unary = grpc::ServerUnaryReactor;

 public:
  explicit ScalerService(Desk& desk) : desk_(desk) {}

  Unary* IsActive(Context* context, const Bytes* request, Bytes* response) override {
    UnaryCall* call = NewCall("IsActive", context, request, response);
    Unary* reactor = call->reactor();
    if (const auto target = ReadRequest<wire::ScaledObjectRef>(call, *request, CheckRef)) {
      RunOnQueue(call, target->queue, IfMissing::kFail, *target, AskIfActive);
    }
    return reactor;
  }
  grpc::ServerWriteReactor<Bytes>* StreamIsActive(Context* context, const Bytes* request) override {
    const auto stream = std::make_shared<ActiveStream>(desk_, *context);
    stream->Start(*request);
    return stream.get();
  }
  Unary* GetMetricSpec(Context* context, const Bytes* request, Bytes* response) override {
    UnaryCall* call = NewCall("GetMetricSpec", context, request, response);
    Unary* reactor = call->reactor();
    if (const auto target = ReadRequest<wire::ScaledObjectRef>(call, *request, CheckRef)) {
      call->Answer(EncodeMessage(SpecOf(*target)));
    }
    return reactor;
  }
  Unary* GetMetrics(Context* context, const Bytes* request, Bytes* response) override {
    UnaryCall* call = NewCall("GetMetrics", context, request, response);
    Unary* reactor = call->reactor();
    if (const auto checked = ReadRequest<wire::GetMetricsRequest>(call, *request, CheckGetMetrics)) {
      RunOnQueue(call, checked->target.queue, IfMissing::kFail, *checked, AskMetrics);
    }
    return reactor;
  }

 private:
  UnaryCall* NewCall(std::string_view method, Context* context, const Bytes* request, Bytes* response) {
    return new UnaryCall(desk_, {kScalerServiceName, method, *context, *request, *response});
  }

  Desk& desk_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeScalerService(Desk& desk) { return std::make_unique<ScalerService>(desk); }

}  // namespace postkeeper
