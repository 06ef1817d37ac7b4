#include "service/daemon.h"

#include <google/protobuf/stubs/logging.h>

#include <algorithm>
#include <asio/co_spawn.hpp>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "metrics/prometheus.h"
#include "service/advertised_address.h"
#include "service/broker.h"
#include "service/data_directory.h"
#include "service/desk.h"
#include "service/embedded_zookeeper.h"
#include "service/logging.h"
#include "service/metered_client.h"
#include "service/peer_watch.h"
#include "service/peers.h"
#include "service/server.h"
#include "service/stop_signals.h"
#include "zkstore/c_client.h"
#include "zkstore/errors.h"
#include "zkstore/real_environment.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

// How soon a change of readiness is told, and a request to stop is seen.
constexpr Duration kTick = std::chrono::milliseconds(100);
// The loops must have turned within this, or the process is not alive.
constexpr Duration kPulse = std::chrono::milliseconds(500);
constexpr Duration kPulseMissed = std::chrono::seconds(10);
// Of the drain timeout, what is kept for closing the store, the port and the session.
constexpr Duration kClosingShare = std::chrono::seconds(5);
constexpr Duration kConnectPatience = std::chrono::seconds(1);
constexpr Duration kConnectPoll = std::chrono::milliseconds(10);
constexpr Duration kShutdownTimeout = std::chrono::seconds(1);
constexpr Duration kSessionCloseTimeout = std::chrono::seconds(1);

RequestLimits RequestLimitsOf(const Config& config) {
  RequestLimits limits;
  limits.message_bytes_max = config.message_bytes_max;
  limits.request_bytes_max = config.batch_bytes_max;
  limits.request_messages_max = static_cast<int>(config.batch_messages_max);
  return limits;
}

EngineLimits EngineLimitsOf(const Config& config) {
  EngineLimits limits;
  limits.requests = RequestLimitsOf(config);
  limits.stored_bytes_max = config.stored_bytes_max;
  limits.request_ids_max = static_cast<std::size_t>(config.request_ids_max);
  limits.request_id_window = config.request_id_window;
  limits.consumers_max = config.consumers_max;
  return limits;
}

AppendOptions AppendOptionsOf(const Config& config) {
  AppendOptions options;
  options.in_flight_max = static_cast<int>(config.appends_in_flight);
  options.batch_bytes_max = static_cast<std::size_t>(config.batch_bytes_max);
  options.batch_messages_max = static_cast<int>(config.batch_messages_max);
  options.segment_batches_max = static_cast<std::uint32_t>(config.segment_batches_max);
  return options;
}

// What GetServerInfo tells of the limits. Names are for ever; each ends with its unit.
std::map<std::string, std::int64_t> PublicLimits(const Config& config) {
  const RequestLimits requests = RequestLimitsOf(config);
  return {
      {"message_bytes", requests.message_bytes_max},
      {"request_bytes", requests.request_bytes_max},
      {"request_messages", requests.request_messages_max},
      {"dequeue_messages", requests.dequeue_messages_max},
      {"response_bytes", requests.response_bytes_max},
      {"stored_bytes", config.stored_bytes_max},
      {"request_id_window_seconds", std::chrono::ceil<std::chrono::seconds>(config.request_id_window).count()},
      {"request_ids", config.request_ids_max},
      {"consumers", config.consumers_max},
      {"calls", config.calls_max},
      {"streams", config.streams_max},
  };
}

// ZooKeeper's C client has much to say about connections that come and go; the session's own events say it better.
void LogForZookeeper(zk::LogLevel level, std::string_view text) {
  if (level == zk::LogLevel::kError) {
    LogWarning("the ZooKeeper client reports an error", {{"error", text}});
  } else {
    LogDebug("ZooKeeper client", {{"text", text}});
  }
}

// Shows that the environment's threads run what is given to them.
class Pulse {
 public:
  explicit Pulse(Environment& environment) : environment_(environment), beat_at_(environment.Now()) {
    Spawn(environment.executor(), Beat());
  }
  bool IsLive() const { return environment_.Now() - beat_at_.load() < kPulseMissed; }

 private:
  Task<void> Beat() {
    while (true) {
      beat_at_ = environment_.Now();
      co_await SleepFor(environment_, kPulse);
    }
  }

  Environment& environment_;
  std::atomic<Instant> beat_at_;
};

class Daemon {
 public:
  Daemon(const Config& config, std::string_view version) : config_(config), version_(version) {}

  // Everything up to the point where the store may be asked for. The error is for the user.
  absl::Status StartUp() {
    if (absl::Status status = OpenDataDirectory(); !status.ok()) return status;
    environment_.emplace(config_.threads, "postkeeperd");
    process_ = ProcessId::Make(*environment_);
    pulse_.emplace(*environment_);
    if (absl::Status status = StartMetrics(); !status.ok()) return status;
    if (absl::Status status = StartServer(); !status.ok()) return status;
    if (absl::Status status = StartZookeeper(); !status.ok()) return status;
    OpenStore();
    return absl::OkStatus();
  }

  // Serves until it is asked to stop, or cannot go on.
  absl::Status Serve(StopSignals& signals) {
    while (!signals.WaitFor(kTick)) {
      Tick();
      if (HasStarted() && !start_result_.ok()) return start_result_;
      if (std::optional<absl::Status> gone = ZookeeperGone()) return *gone;
    }
    return absl::OkStatus();
  }

  void Stop() {
    const Instant deadline = environment_->Now() + config_.drain_timeout;
    const Duration grace = std::max(config_.drain_timeout - kClosingShare, config_.drain_timeout / 2);
    server_->health().Set(/*is_ready=*/false, pulse_->IsLive());
    server_->Drain(grace);
    StopBroker(std::max<Duration>(deadline - environment_->Now() - kShutdownTimeout - kSessionCloseTimeout,
                                  std::chrono::milliseconds(100)));
    server_->Shutdown(kShutdownTimeout);
    client_->Close(kSessionCloseTimeout);
    environment_->Stop();
    environment_->Join();
    if (zookeeper_) zookeeper_->Stop();
    LogInfo("stopped");
  }

 private:
  absl::Status OpenDataDirectory() {
    if (!config_.zookeeper_is_embedded()) return absl::OkStatus();
    absl::StatusOr<DataDirectory> directory = DataDirectory::Open(config_.data_dir);
    if (!directory.ok()) return directory.status();
    data_directory_.emplace(*std::move(directory));
    return absl::OkStatus();
  }

  absl::Status StartMetrics() {
    if (config_.metrics_listen.empty()) {
      metrics_ = MakeNullMetrics();
      return absl::OkStatus();
    }
    std::unique_ptr<PrometheusMetrics> metrics =
        PrometheusMetrics::Make({.queues_max = static_cast<int>(config_.metrics_queues_max),
                                 .version = version_,
                                 .store_format = Layout::kFormatVersion,
                                 .limits = PublicLimits(config_)});
    if (absl::Status status = metrics->Listen(config_.metrics_listen); !status.ok()) return status;
    metrics_address_ = Cat(config_.metrics_listen.substr(0, config_.metrics_listen.rfind(':')), ":", metrics->port());
    metrics_ = std::move(metrics);
    return absl::OkStatus();
  }

  absl::Status StartServer() {
    const CallGate::Options gate{.calls_max = config_.calls_max, .streams_max = config_.streams_max};
    desk_.emplace(*environment_, gate, *metrics_, RequestLimitsOf(config_), EncodeProcessId(process_));
    absl::StatusOr<std::unique_ptr<Server>> server =
        Server::Start(*desk_, {.listen = config_.listen, .info = {version_, PublicLimits(config_)}});
    if (!server.ok()) return server.status();
    server_ = *std::move(server);
    server_->health().Set(/*is_ready=*/false, /*is_live=*/true);
    address_ =
        config_.advertise.empty() ? DefaultAdvertisedAddress(server_->address(), HostAddresses()) : config_.advertise;
    LogInfo("listening", {{"grpc", server_->address()},
                          {"advertised", address_},
                          {"metrics", metrics_address_.empty() ? "off" : metrics_address_},
                          {"version", version_},
                          {"replica", desk_->replica}});
    return absl::OkStatus();
  }

  absl::Status StartZookeeper() {
    if (!config_.zookeeper_is_embedded()) {
      hosts_ = config_.zookeeper;
      return zk::CheckHosts(hosts_);
    }
    if (const std::optional<std::string> previous = data_directory_->previous_process_id()) {
      dead_predecessor_ = ProcessId::FromHex(*previous);
    }
    if (absl::Status status = data_directory_->RecordProcessId(process_.ToHex()); !status.ok()) return status;
    EmbeddedZooKeeper::Options options;
    options.directory = data_directory_->zookeeper_path();
    options.port = config_.embedded_zookeeper_port;
    options.heap_bytes = config_.zookeeper_heap_bytes;
    options.on_gone = [this](absl::Status why) {
      absl::MutexLock lock(&mutex_);
      zookeeper_gone_ = std::move(why);
    };
    absl::StatusOr<std::unique_ptr<EmbeddedZooKeeper>> zookeeper = EmbeddedZooKeeper::Start(std::move(options));
    if (!zookeeper.ok()) return zookeeper.status();
    zookeeper_ = *std::move(zookeeper);
    hosts_ = zookeeper_->hosts();
    LogInfo("ZooKeeper runs", {{"address", hosts_}, {"pid", zookeeper_->pid()}, {"data", config_.data_dir}});
    return absl::OkStatus();
  }

  void OpenStore() {
    zk::CClientOptions options{
        .hosts = hosts_, .session_timeout = config_.session_timeout, .log_sink = LogForZookeeper};
    plain_client_ = std::make_unique<zk::CClient>(*environment_, std::move(options));
    client_.emplace(*environment_, *plain_client_, *metrics_);
    const Layout layout(config_.root);
    catalog_.emplace(*environment_, *client_, layout);
    cache_.emplace(static_cast<std::size_t>(config_.cache_bytes_max));
    context_.reset(new EngineContext{.environment = *environment_,
                                     .client = *client_,
                                     .catalog = *catalog_,
                                     .layout = layout,
                                     .process = process_,
                                     .address = address_,
                                     .cache = *cache_,
                                     .metrics = *metrics_,
                                     .append = AppendOptionsOf(config_),
                                     .limits = EngineLimitsOf(config_)});
    broker_.emplace(*context_, Broker::Options{.creates_automatically = config_.auto_create_is_on,
                                               .version = version_,
                                               .dead_predecessor = dead_predecessor_,
                                               .balance_after = config_.balance_after,
                                               .unreachable_replicas = [this] { return peer_watch_->unreachable(); }});
    peer_watch_.emplace(*environment_,
                        [this](const std::string& address) { return desk_->peers->IsConnectedTo(address); });
    started_ = Run(StartBroker(), &start_result_);
    desk_->SetBroker(&*broker_);
  }

  // A session takes a moment to be made; only after that it is worth a line in the log that there is none.
  Task<absl::Status> StartBroker() {
    const Instant deadline = environment_->Now() + kConnectPatience;
    while (client_->session().state != zk::SessionState::kConnected && environment_->Now() < deadline) {
      co_await SleepFor(*environment_, kConnectPoll);
    }
    co_return co_await broker_->Start();
  }

  // Lets `task` run on the environment's threads; the future is ready when `result` is written.
  std::future<void> Run(Task<absl::Status> task, absl::Status* result) {
    auto run = [](Task<absl::Status> running, absl::Status* to, std::promise<void> done) -> Task<void> {
      *to = co_await std::move(running);
      done.set_value();
    };
    std::promise<void> done;
    std::future<void> ended = done.get_future();
    Spawn(environment_->executor(), run(std::move(task), result, std::move(done)));
    return ended;
  }

  bool HasStarted() { return started_.wait_for(std::chrono::seconds(0)) == std::future_status::ready; }

  void Tick() {
    const bool is_ready = broker_->is_ready();
    if (is_ready != was_ready_) {
      if (is_ready) {
        LogInfo("ready", {{"zookeeper", hosts_}});
      } else {
        LogWarning("not ready: there is no session with ZooKeeper", {{"zookeeper", hosts_}});
      }
    }
    was_ready_ = is_ready;
    server_->health().Set(is_ready, pulse_->IsLive());
    const Instant now = environment_->Now();
    if (now - gate_looked_at_ < std::chrono::seconds(1)) return;
    gate_looked_at_ = now;
    desk_->gate.Tick();
    LookAtPeers();
  }

  void LookAtPeers() {
    std::vector<std::string> addresses;
    if (const std::optional<Membership::View> view = broker_->membership().view()) {
      for (const ReplicaInfo& replica : view->replicas) {
        if (replica.process != process_ && !replica.address.empty()) addresses.push_back(replica.address);
      }
    }
    peer_watch_->Look(addresses);
  }

  std::optional<absl::Status> ZookeeperGone() {
    absl::MutexLock lock(&mutex_);
    return zookeeper_gone_;
  }

  void StopBroker(Duration timeout) {
    broker_->Drain();  // lets Start return
    started_.wait_for(timeout);
    auto stop = [](Broker& broker, Duration within) -> Task<absl::Status> {
      co_await broker.Stop(within);
      co_return absl::OkStatus();
    };
    const std::future<void> stopped = Run(stop(*broker_, timeout), &stop_result_);
    // Not longer than it promises, whatever happens.
    if (stopped.wait_for(timeout + kTick) != std::future_status::ready) LogWarning("the store did not close in time");
  }

  const Config& config_;
  const std::string version_;

  // In the order of making. Nothing here is destroyed while the process lives: RunDaemon's caller ends it.
  std::optional<DataDirectory> data_directory_;
  std::optional<RealEnvironment> environment_;
  ProcessId process_{};
  std::optional<ProcessId> dead_predecessor_;
  std::optional<Pulse> pulse_;
  std::unique_ptr<Metrics> metrics_;
  std::string metrics_address_;  // empty: off
  std::optional<Desk> desk_;
  std::unique_ptr<Server> server_;
  std::string address_;  // by which other replicas reach it
  std::unique_ptr<EmbeddedZooKeeper> zookeeper_;
  std::string hosts_;
  std::unique_ptr<zk::CClient> plain_client_;
  std::optional<MeteredClient> client_;
  std::optional<Catalog> catalog_;
  std::optional<BatchCache> cache_;
  std::unique_ptr<EngineContext> context_;
  std::optional<PeerWatch> peer_watch_;
  std::optional<Broker> broker_;

  absl::Status start_result_;  // once started_ is ready
  absl::Status stop_result_;
  std::future<void> started_;
  bool was_ready_ = false;
  Instant gate_looked_at_{};

  absl::Mutex mutex_;
  std::optional<absl::Status> zookeeper_gone_ ABSL_GUARDED_BY(mutex_);
};

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "postkeeperd: %s\n", std::string(StdView(status.message())).c_str());
  FlushLog();
  return 1;
}

}  // namespace

int RunDaemon(const Config& config, std::string_view version) {
  ConfigureLogging(config.log_level, config.log_format);
  // It would write a line for each request with bytes that are not UTF-8. The caller is told.
  google::protobuf::SetLogHandler(nullptr);
  auto& signals = *new StopSignals;
  // Not destroyed: threads of gRPC and of the ZooKeeper client may still look at parts of it while the process ends.
  auto& daemon = *new Daemon(config, version);
  if (absl::Status status = daemon.StartUp(); !status.ok()) return Fail(status);
  signals.StopInOrder();
  const absl::Status why = daemon.Serve(signals);
  daemon.Stop();
  if (!why.ok()) return Fail(why);
  FlushLog();
  return 0;
}

}  // namespace postkeeper
