#include "bench/rounds.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <memory>
#include <utility>

#include "bench/append_load.h"
#include "bench/echo_server.h"
#include "bench/service_client.h"
#include "bench/unary_load.h"
#include "bench/zookeeper_load.h"
#include "zkstore/batch.h"
#include "zkstore/text.h"

namespace postkeeper::bench {
namespace {

// Before the first round.
constexpr Window kWarmUp{.warm_up = std::chrono::seconds(0), .time = std::chrono::seconds(4), .count_max = 1'000'000};

class Rounds {
 public:
  explicit Rounds(const RoundsOptions& options) : options_(options), processes_(options.processes) {
    processes_["client"] = getpid();
  }

  absl::StatusOr<Results> Run() {
    if (absl::Status status = WaitUntilReachable(options_.address, std::chrono::seconds(10)); !status.ok()) {
      return status;
    }
    if (has_ceilings()) {
      absl::StatusOr<std::unique_ptr<ZookeeperBench>> zookeeper = ZookeeperBench::Connect(options_.zookeeper);
      if (!zookeeper.ok()) return zookeeper.status();
      zookeeper_ = *std::move(zookeeper);
      absl::StatusOr<std::unique_ptr<EchoProcess>> echo = EchoProcess::Start();
      if (!echo.ok()) return echo.status();
      echo_ = *std::move(echo);
    }
    if (absl::Status status = WarmUp(); !status.ok()) return status;
    for (round_ = 1; round_ <= options_.rounds; ++round_) {
      if (absl::Status status = RunOnce(); !status.ok()) return status;
    }
    return std::move(results_);
  }

 private:
  using MakeLoad = std::function<std::unique_ptr<Load>(const std::string& log)>;

  bool has_ceilings() const { return !options_.zookeeper.empty(); }
  bool IsWanted(const char* workload) const { return options_.workloads.contains(workload); }

  // A Java that has just been started compiles what it runs most, on the same cores, and is slow until then.
  absl::Status WarmUp() {
    if (!has_ceilings()) return absl::OkStatus();
    const auto log = ScratchLog::Make(options_.address, ScratchLog::Kind::kQueue);
    if (!log.ok()) return log.status();
    Tell("warm-up");
    const auto calls =
        MakeUnaryLoad(options_.address, (*log)->name(), options_.unary_in_flight, options_.shape.append.body_bytes);
    if (absl::Status status = Measure(*calls, kWarmUp, {}).status(); !status.ok()) return status;
    const auto frames = MakeEnqueueLoad(options_.address, (*log)->name(), options_.shape.append);
    return Measure(*frames, kWarmUp, {}).status();
  }

  absl::Status RunOnce() {
    struct Step {
      const char* workload;
      absl::Status (Rounds::*run)();
    };
    constexpr Step kSteps[] = {{kEnqueue, &Rounds::RunEnqueue},
                               {kConsume, &Rounds::RunConsume},
                               {kUnary, &Rounds::RunUnary},
                               {kConfirm, &Rounds::RunConfirm},
                               {kSubscribe, &Rounds::RunSubscribe}};
    for (const Step& step : kSteps) {
      if (!IsWanted(step.workload)) continue;
      if (absl::Status status = (this->*step.run)(); !status.ok()) return status;
    }
    return absl::OkStatus();
  }

  absl::Status RunEnqueue() {
    const auto make = [this](const std::string& queue) {
      return MakeEnqueueLoad(options_.address, queue, options_.shape.append);
    };
    if (absl::Status status = RunWorkload(kEnqueue, ScratchLog::Kind::kQueue, make); !status.ok()) return status;
    if (!has_ceilings()) return absl::OkStatus();
    if (absl::Status status = RunSameMulti(kEnqueue, kEnqueueMulti); !status.ok()) return status;
    const auto creates = zookeeper_->MakeCreateLoad(kInFlightMax, options_.shape.append.body_bytes);
    return RunCeiling(kCreates, *creates);
  }

  absl::Status RunConsume() {
    const auto make = [this](const std::string& queue) {
      return MakeConsumeLoad(options_.address, queue, options_.shape);
    };
    if (absl::Status status = RunWorkload(kConsume, ScratchLog::Kind::kQueue, make); !status.ok()) return status;
    return has_ceilings() ? RunSameMulti(kConsume, kConsumeMulti) : absl::OkStatus();
  }

  absl::Status RunUnary() {
    if (absl::Status status = RunUnaryCalls(kUnary, options_.unary_in_flight); !status.ok()) return status;
    return has_ceilings() ? RunEcho(kUnaryEcho, options_.unary_in_flight) : absl::OkStatus();
  }

  absl::Status RunConfirm() {
    if (absl::Status status = RunUnaryCalls(kConfirm, 1); !status.ok() || !has_ceilings()) return status;
    const auto creates = zookeeper_->MakeCreateLoad(1, options_.shape.append.body_bytes);
    if (absl::Status status = RunCeiling(kConfirmCreate, *creates); !status.ok()) return status;
    return RunEcho(kConfirmEcho, 1);
  }

  absl::Status RunSubscribe() {
    const auto make = [this](const std::string& topic) {
      return MakeSubscribeLoad(options_.address, topic, options_.shape);
    };
    return RunWorkload(kSubscribe, ScratchLog::Kind::kTopic, make);
  }

  absl::Status RunUnaryCalls(const char* name, int in_flight) {
    const auto make = [this, in_flight](const std::string& queue) {
      return MakeUnaryLoad(options_.address, queue, in_flight, options_.shape.append.body_bytes);
    };
    return RunWorkload(name, ScratchLog::Kind::kQueue, make);
  }

  absl::Status RunEcho(const char* name, int in_flight) {
    const auto load = MakeUnaryLoad(echo_->address(), "bench", in_flight, options_.shape.append.body_bytes);
    return RunCeiling(name, *load, {{"client", getpid()}, {"echo", echo_->pid()}});
  }

  absl::Status RunSameMulti(const char* workload, const char* name) {
    const double messages = results_.Of(workload).batches.back().messages_per_batch();
    const int rounded = std::clamp(static_cast<int>(std::lround(messages)), 1, Batch::kMessagesMax);
    const auto load = zookeeper_->MakeAppendLoad(options_.appends_in_flight, rounded, options_.shape.append.body_bytes);
    return RunCeiling(name, *load);
  }

  absl::Status RunWorkload(const char* name, ScratchLog::Kind kind, const MakeLoad& make) {
    const auto log = ScratchLog::Make(options_.address, kind);
    if (!log.ok()) return log.status();
    const std::unique_ptr<Load> load = make((*log)->name());
    BatchCounts before, after;
    absl::Status metrics_status;
    const auto read = [&](BatchCounts& counts) {
      if (options_.metrics_address.empty()) return;
      const absl::StatusOr<std::string> page = FetchMetricsPage(options_.metrics_address);
      metrics_status.Update(page.status());
      if (page.ok()) counts = BatchCounts::Of(*page);
    };
    Tell(name);
    absl::StatusOr<Measured> measured = Measure(
        *load, options_.window, processes_, [&] { read(before); }, [&] { read(after); });
    if (measured.ok() && !metrics_status.ok()) measured = metrics_status;
    if (!measured.ok()) return Named(measured.status(), name);
    Series& series = results_.Of(name);
    series.rounds.push_back(*std::move(measured));
    if (options_.metrics_address.empty()) return absl::OkStatus();
    if (after.batches <= before.batches) return absl::InternalError(Cat(name, ": the metrics page counts no batches"));
    series.batches.push_back(after - before);
    return absl::OkStatus();
  }

  absl::Status RunCeiling(const char* name, Load& load) { return RunCeiling(name, load, CeilingProcesses()); }
  absl::Status RunCeiling(const char* name, Load& load, const Processes& processes) {
    Tell(name);
    absl::StatusOr<Measured> measured = Measure(load, options_.window, processes);
    if (!measured.ok()) return Named(measured.status(), name);
    results_.Of(name).rounds.push_back(*std::move(measured));
    return absl::OkStatus();
  }

  // postkeeperd has no part in it.
  Processes CeilingProcesses() const {
    Processes processes = processes_;
    processes.erase("postkeeperd");
    return processes;
  }

  static absl::Status Named(const absl::Status& status, const char* name) {
    return absl::Status(status.code(), Cat(name, ": ", StdView(status.message())));
  }

  void Tell(const char* name) const {
    if (options_.rounds == 1 && !has_ceilings()) return;
    std::fprintf(stderr, "round %d of %d: %s\n", round_, options_.rounds, name);
  }

  const RoundsOptions& options_;
  Processes processes_;
  std::unique_ptr<ZookeeperBench> zookeeper_;
  std::unique_ptr<EchoProcess> echo_;
  int round_ = 0;  // 0 = the warm-up
  Results results_;
};

}  // namespace

absl::StatusOr<Results> RunRounds(const RoundsOptions& options) { return Rounds(options).Run(); }

}  // namespace postkeeper::bench
