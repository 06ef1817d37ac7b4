#include "zkstore/simulator.h"

#include <algorithm>

namespace postkeeper::zk {
namespace {

constexpr std::int64_t kFirstSession = 0x1000000'00000000;

// Bytes behind the packet's length. Jute: strings and buffers carry a length of 4; an ACL of one entry (world:anyone)
// takes 27 bytes, flags and versions 4 each.
constexpr std::size_t kHeaderBytes = 8;
constexpr std::size_t kCreateBytes = 4 + 4 + 27 + 4;
constexpr std::size_t kSetBytes = 4 + 4 + 4;
constexpr std::size_t kPathAndVersionBytes = 4 + 4;
constexpr std::size_t kMultiHeaderBytes = 9;

std::size_t OpBytes(const Op& op) {
  std::size_t fixed = op.kind == Op::Kind::kCreate ? kCreateBytes
                      : op.kind == Op::Kind::kSet  ? kSetBytes
                                                   : kPathAndVersionBytes;
  bool has_data = op.kind == Op::Kind::kCreate || op.kind == Op::Kind::kSet;
  return fixed + op.path.size() + (has_data ? op.data.size() : 0);
}

std::size_t PacketBytes(const Request& request) {
  switch (request.kind) {
    case Request::Kind::kCreate:
      return kHeaderBytes + kCreateBytes + request.path.size() + request.data.size();
    case Request::Kind::kSet:
      return kHeaderBytes + kSetBytes + request.path.size() + request.data.size();
    case Request::Kind::kDelete:
      return kHeaderBytes + kPathAndVersionBytes + request.path.size();
    case Request::Kind::kMulti: {
      std::size_t bytes = kHeaderBytes + kMultiHeaderBytes;
      for (const Op& op : request.ops) bytes += kMultiHeaderBytes + OpBytes(op);
      return bytes;
    }
    case Request::Kind::kGet:
    case Request::Kind::kExists:
    case Request::Kind::kChildren:
      return kHeaderBytes + 4 + 1 + request.path.size();
    case Request::Kind::kSync:
      return kHeaderBytes + 4 + request.path.size();
  }
  return kHeaderBytes;
}

std::size_t WatchesBytes(const std::vector<std::string>& paths) {
  std::size_t bytes = 4;
  for (const std::string& path : paths) bytes += 4 + path.size();
  return bytes;
}

}  // namespace

SimulatedEnsemble::SimulatedEnsemble(SimulatedEnvironment& environment, SimulatedEnsembleOptions options)
    : environment_(environment),
      options_(options),
      random_(environment.Random64()),
      self_(std::make_shared<SimulatedEnsemble*>(this)) {}

SimulatedEnsemble::~SimulatedEnsemble() = default;

// ---- for tests ----

void SimulatedEnsemble::Stop() {
  is_running_ = false;
  auto connections = connections_;
  for (auto& [number, connection] : connections) {
    if (connection->client != nullptr) connection->client->OnDropped();
    connection->to_server->LoseAll();
  }
  ForgetFinishedConnections();
}

void SimulatedEnsemble::Start() {
  if (is_running_) return;
  is_running_ = true;
  for (auto& [id, session] : sessions_) Touch(id);
}

bool SimulatedEnsemble::ExpireSession(std::int64_t session_id) {
  if (!sessions_.contains(session_id)) return false;
  EndSession(session_id);
  return true;
}

std::vector<std::int64_t> SimulatedEnsemble::sessions() const {
  std::vector<std::int64_t> ids;
  for (const auto& [id, session] : sessions_) ids.push_back(id);
  return ids;
}

// ---- connections ----

std::shared_ptr<SimulatedConnection> SimulatedEnsemble::MakeConnection(SimulatedClient& client) {
  ForgetFinishedConnections();
  auto make_pipe = [this] {
    return std::make_shared<SimulatedPipe>(environment_, random_, options_.latency_min, options_.latency_max);
  };
  auto connection = std::make_shared<SimulatedConnection>();
  connection->number = ++connections_made_;
  connection->client = &client;
  connection->to_server = make_pipe();
  connection->to_client = make_pipe();
  connections_[connection->number] = connection;
  return connection;
}

void SimulatedEnsemble::Detach(SimulatedConnection& connection) {
  connection.client = nullptr;
  connection.is_open = false;
  connection.data_watches.clear();
  connection.child_watches.clear();
  connection.to_client->LoseEvenHeld();
}

void SimulatedEnsemble::Drop(SimulatedConnection& connection) {
  connection.is_open = false;
  connection.data_watches.clear();
  connection.child_watches.clear();
  connection.to_client->Send([&connection] {
    if (connection.client != nullptr) connection.client->OnDropped();
  });
}

void SimulatedEnsemble::ForgetFinishedConnections() {
  std::erase_if(connections_, [](const auto& entry) {
    return entry.second->client == nullptr && entry.second->to_server->is_empty();
  });
}

// ---- sessions ----

bool SimulatedEnsemble::Touch(std::int64_t session_id) {
  auto found = sessions_.find(session_id);
  if (found == sessions_.end()) return false;
  Session& session = found->second;
  // As the server does: to the next multiple of a tick after the timeout, so that it can look at many at once.
  auto ticks = (environment_.Now() + session.timeout).time_since_epoch() / options_.tick + 1;
  session.expires_at = Instant(options_.tick * ticks);
  return true;
}

void SimulatedEnsemble::ScheduleExpiry(std::int64_t session_id) {
  Duration left = sessions_.at(session_id).expires_at - environment_.Now();
  environment_.RunAfter(std::max(left, options_.tick), [weak = std::weak_ptr(self_), session_id] {
    if (auto self = weak.lock()) (*self)->CheckExpiry(session_id);
  });
}

void SimulatedEnsemble::CheckExpiry(std::int64_t session_id) {
  auto found = sessions_.find(session_id);
  if (found == sessions_.end()) return;
  if (is_running_ && found->second.expires_at <= environment_.Now()) {
    EndSession(session_id);
  } else {
    ScheduleExpiry(session_id);
  }
}

void SimulatedEnsemble::EndSession(std::int64_t session_id) {
  std::int64_t connection_number = sessions_.at(session_id).connection;
  sessions_.erase(session_id);
  std::vector<TreeEvent> events;
  tree_.RemoveEphemerals({++zxid_, WallNowMs(), session_id}, events);
  writing_session_ = session_id;
  Tell(events);
  if (auto found = connections_.find(connection_number); found != connections_.end() && found->second->is_open) {
    // The server that the client is connected to learns it from the leader a little later; requests that arrive in
    // between are answered with the expiry.
    Duration delay = random_.Between(options_.latency_min, options_.latency_max);
    environment_.RunAfter(delay, [this, self = std::weak_ptr(self_), weak = std::weak_ptr(found->second)] {
      auto connection = weak.lock();
      if (!self.expired() && connection && connection->is_open) Drop(*connection);
    });
  }
}

std::int64_t SimulatedEnsemble::WallNowMs() const { return environment_.WallNow().time_since_epoch().count(); }

// ---- arrivals ----

void SimulatedEnsemble::ReceiveConnect(SimulatedConnection& connection, std::int64_t session_id, Duration timeout) {
  if (!is_running_ || !connection.is_open) return;
  if (session_id == 0) {
    session_id = kFirstSession + ++sessions_made_;
    ++zxid_;
    Session& session = sessions_[session_id];
    session.timeout = std::clamp(timeout, 2 * options_.tick, 20 * options_.tick);
    Touch(session_id);
    ScheduleExpiry(session_id);
  } else if (!Touch(session_id)) {
    connection.to_client->Send([&connection] {
      if (connection.client != nullptr) connection.client->OnExpired();
    });
    connection.is_open = false;
    return;
  }
  Session& session = sessions_.at(session_id);
  if (auto old = connections_.find(session.connection); old != connections_.end() && old->second->is_open) {
    Drop(*old->second);
  }
  session.connection = connection.number;
  connection.session_id = session_id;
  connection.to_client->Send([&connection, session_id, negotiated = session.timeout] {
    if (connection.client != nullptr) connection.client->OnConnected(session_id, negotiated);
  });
}

void SimulatedEnsemble::ReceiveRequest(SimulatedConnection& connection, const Request& request, bool wants_watch,
                                       std::int64_t number) {
  if (!is_running_) return;
  if (PacketBytes(request) > kPacketBytesMax) {
    connection.to_server->LoseAll();  // the server reads no further
    if (connection.is_open) Drop(connection);
    return;
  }
  // A late copy comes over a connection that is open no more; its session may live, and then it is carried out.
  Response response;
  if (!sessions_.contains(connection.session_id)) {
    response.code = Code::kSessionExpired;
  } else {
    if (connection.is_open) Touch(connection.session_id);
    response = Process(request, connection.session_id);
    if (wants_watch) AddWatch(connection, request, response.code);
  }
  if (!connection.is_open) return;
  response.zxid = zxid_;
  connection.to_client->Send([&connection, number, response = std::move(response)]() mutable {
    if (connection.client != nullptr) connection.client->OnReply(number, std::move(response));
  });
}

void SimulatedEnsemble::ReceivePing(SimulatedConnection& connection) {
  if (!is_running_ || !connection.is_open || !Touch(connection.session_id)) return;
  connection.to_client->Send([&connection, zxid = zxid_] {
    if (connection.client != nullptr) connection.client->OnPong(zxid);
  });
}

void SimulatedEnsemble::ReceiveWatches(SimulatedConnection& connection, const std::vector<std::string>& data,
                                       const std::vector<std::string>& exists, const std::vector<std::string>& children,
                                       std::int64_t seen_zxid) {
  if (!is_running_ || !connection.is_open || !Touch(connection.session_id)) return;
  if (kHeaderBytes + 8 + WatchesBytes(data) + WatchesBytes(exists) + WatchesBytes(children) > kPacketBytesMax) {
    Drop(connection);
    return;
  }
  Stat stat;
  for (const std::string& path : data) {
    if (!tree_.FindStat(path, stat)) {
      SendEvent(connection, {WatchType::kDeleted, path});
    } else if (stat.mzxid > seen_zxid) {
      SendEvent(connection, {WatchType::kChanged, path});
    } else {
      connection.data_watches.insert(path);
    }
  }
  for (const std::string& path : exists) {
    if (tree_.FindStat(path, stat)) {
      SendEvent(connection, {WatchType::kCreated, path});
    } else {
      connection.data_watches.insert(path);
    }
  }
  for (const std::string& path : children) {
    if (!tree_.FindStat(path, stat)) {
      SendEvent(connection, {WatchType::kDeleted, path});
    } else if (stat.pzxid > seen_zxid) {
      SendEvent(connection, {WatchType::kChildren, path});
    } else {
      connection.child_watches.insert(path);
    }
  }
}

void SimulatedEnsemble::ReceiveClose(SimulatedConnection& connection) {
  if (is_running_ && sessions_.contains(connection.session_id)) EndSession(connection.session_id);
}

// ---- requests and watches ----

Response SimulatedEnsemble::Process(const Request& request, std::int64_t session_id) {
  switch (request.kind) {
    case Request::Kind::kGet:
    case Request::Kind::kExists:
    case Request::Kind::kChildren:
      return tree_.Read(request);
    case Request::Kind::kSync:
      return {};
    default:
      break;
  }
  // A write that fails uses up a number too.
  std::vector<TreeEvent> events;
  Response response = tree_.Write(request, {++zxid_, WallNowMs(), session_id}, events);
  writing_session_ = session_id;
  Tell(events);
  return response;
}

void SimulatedEnsemble::AddWatch(SimulatedConnection& connection, const Request& request, Code code) {
  if (!connection.is_open) return;
  if (request.kind == Request::Kind::kExists) {
    connection.data_watches.insert(request.path);
  } else if (code == Code::kOk && request.kind == Request::Kind::kGet) {
    connection.data_watches.insert(request.path);
  } else if (code == Code::kOk && request.kind == Request::Kind::kChildren) {
    connection.child_watches.insert(request.path);
  }
}

void SimulatedEnsemble::Tell(const std::vector<TreeEvent>& events) {
  for (const TreeEvent& event : events) {
    if (tree_observer_) tree_observer_(event);
    for (auto& [number, connection] : connections_) {
      bool had_watch = false;
      if (event.type != WatchType::kChildren) had_watch |= connection->data_watches.erase(event.path) > 0;
      if (event.type == WatchType::kChildren || event.type == WatchType::kDeleted) {
        had_watch |= connection->child_watches.erase(event.path) > 0;
      }
      if (had_watch) SendEvent(*connection, {event.type, event.path});
    }
  }
}

void SimulatedEnsemble::SendEvent(SimulatedConnection& connection, WatchEvent event) {
  connection.to_client->Send([&connection, event = std::move(event)] {
    if (connection.client != nullptr) connection.client->OnEvent(event);
  });
}

}  // namespace postkeeper::zk
