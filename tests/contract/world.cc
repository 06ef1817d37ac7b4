#include "tests/contract/world.h"

#include <cstdio>
#include <cstdlib>

#include "zkstore/text.h"

namespace postkeeper::zk {
namespace {

constexpr Duration kCloseTimeout = std::chrono::seconds(10);

}  // namespace

std::string World::MakeRoot() {
  Peer peer(*this);
  // The number, and not a name made from it, tells worlds that share a server apart.
  Response made = peer.Create(Cat("/contract-", ++roots_made_, "-"), "", CreateMode::kPersistentSequential);
  if (made.code != Code::kOk) {
    std::fprintf(stderr, "cannot make a root: %s\n", std::string(CodeName(made.code)).c_str());
    std::abort();
  }
  return made.path;
}

struct Peer::Record {
  std::vector<std::string> notes;
  std::vector<SessionEvent> sessions;
};

Peer::Peer(World& world, WorldClientOptions options)
    : world_(world), record_(std::make_shared<Record>()), client_(world.MakeClient(options)) {
  client_->ObserveSession([&world, record = record_](const SessionEvent& event) {
    world.Record([&] { record->sessions.push_back(event); });
  });
  if (WaitForSession(SessionState::kConnected)) return;
  std::fprintf(stderr, "no connection to ZooKeeper\n");
  std::abort();
}

Peer::~Peer() { client_->Close(kCloseTimeout); }

Peer::Pending Peer::Send(Request request, std::string label) {
  auto pending = std::make_shared<std::optional<Response>>();
  client_->Submit(std::move(request), [&world = world_, record = record_, pending, label](Response response) {
    world.Record([&] {
      if (!label.empty()) record->notes.push_back(Cat(label, ": ", CodeName(response.code)));
      *pending = std::move(response);
    });
  });
  return pending;
}

Response Peer::Await(const Pending& pending) {
  if (world_.WaitUntil([&] { return pending->has_value(); })) return **pending;
  std::fprintf(stderr, "a request was never answered\n");
  std::abort();
}

Response Peer::Create(std::string path, std::string data, CreateMode mode) {
  return Do({.kind = Request::Kind::kCreate, .path = std::move(path), .data = std::move(data), .mode = mode});
}

Response Peer::Get(std::string path, Watcher watcher) {
  return Do({.kind = Request::Kind::kGet, .path = std::move(path), .watcher = std::move(watcher)});
}

Response Peer::Set(std::string path, std::string data, std::int32_t version) {
  return Do({.kind = Request::Kind::kSet, .path = std::move(path), .data = std::move(data), .version = version});
}

Response Peer::Delete(std::string path, std::int32_t version) {
  return Do({.kind = Request::Kind::kDelete, .path = std::move(path), .version = version});
}

Response Peer::Exists(std::string path, Watcher watcher) {
  return Do({.kind = Request::Kind::kExists, .path = std::move(path), .watcher = std::move(watcher)});
}

Response Peer::Children(std::string path, Watcher watcher) {
  return Do({.kind = Request::Kind::kChildren, .path = std::move(path), .watcher = std::move(watcher)});
}

Response Peer::Multi(std::vector<Op> ops) { return Do({.kind = Request::Kind::kMulti, .ops = std::move(ops)}); }

Response Peer::Sync(std::string path) { return Do({.kind = Request::Kind::kSync, .path = std::move(path)}); }

Watcher Peer::Noting(std::string label) {
  return [&world = world_, record = record_, label](WatchEvent event) {
    world.Record([&] { record->notes.push_back(Cat(label, ": ", WatchTypeName(event.type), " ", event.path)); });
  };
}

std::vector<std::string> Peer::notes() const {
  std::vector<std::string> copy;
  world_.Record([&] { copy = record_->notes; });
  return copy;
}

void Peer::ForgetNotes() {
  world_.Record([&] { record_->notes.clear(); });
}

bool Peer::WaitForNotes(std::size_t count) {
  return world_.WaitUntil([&] { return record_->notes.size() >= count; });
}

std::vector<SessionEvent> Peer::sessions() const {
  std::vector<SessionEvent> copy;
  world_.Record([&] { copy = record_->sessions; });
  return copy;
}

bool Peer::WaitForSession(SessionState state) {
  return world_.WaitUntil([&] { return !record_->sessions.empty() && record_->sessions.back().state == state; });
}

std::string_view WatchTypeName(WatchType type) {
  switch (type) {
    case WatchType::kCreated:
      return "CREATED";
    case WatchType::kDeleted:
      return "DELETED";
    case WatchType::kChanged:
      return "CHANGED";
    case WatchType::kChildren:
      return "CHILDREN";
    case WatchType::kLost:
      return "LOST";
  }
  return "UNKNOWN";
}

std::vector<std::string> Codes(const Response& response) {
  std::vector<std::string> names;
  for (const OpResult& result : response.results) names.emplace_back(CodeName(result.code));
  return names;
}

}  // namespace postkeeper::zk
