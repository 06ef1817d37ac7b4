// A postkeeperd in memory, for the tests of this room: a real gRPC server on a port of its own with the public services
// behind it. Knows no gRPC in this header, so that tests compile fast.
#ifndef POSTKEEPER_CLI_FAKE_SERVER_H_
#define POSTKEEPER_CLI_FAKE_SERVER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace postkeeper::cli {

struct FakeMessage {
  std::string id;
  std::string body;
  std::map<std::string, std::string> attributes;
  std::string content_type;
  bool is_leased = false;
  bool is_settled = false;
  int attempt = 0;
  std::string last_reason;
};

// A replica of the cluster that the fake server says it is part of.
struct FakeReplica {
  std::string name;
  std::string address;
  std::int64_t sources_owned = 0;
};

// What tests look at and turn; used with the server's lock held, through FakeServer::With and WaitUntil.
struct FakeState {
  std::map<std::string, std::vector<FakeMessage>> queues;
  std::map<std::string, std::vector<FakeMessage>> topics;
  std::map<std::string, std::vector<std::string>> request_ids;  // Of appends: id to what it was for.
  std::map<std::string, std::string> dedup_ids;                 // Of messages: to the id of the message.
  int append_frames = 0;                                        // Frames and calls that wrote something.
  int repeated_frames = 0;                                      // Those whose request_id was known.
  int extended_tokens = 0;
  int refused_extensions = 0;
  int released_tokens = 0;
  int consume_streams = 0;
  int subscribe_streams = 0;
  std::vector<std::string> calls;  // Of AdminService: "CreateQueue orders".
  int lease_millis = 30'000;
  std::vector<FakeReplica> replicas = {
      {"rA", "10.0.0.1:7411", 12}, {"rB", "10.0.0.2:7411", 0}, {"rC", "10.0.0.3:7411", 7}};
  int replicas_per_page = 2;

  // Faults, each done once and then cleared.
  int breaks_append_stream_after = -1;    // Answered frames; the next one is written but not answered.
  int refuses_append_after = -1;          // Answered frames; then QUEUE_FULL.
  int breaks_consume_after_settles = -1;  // The settle is done, but the stream breaks before it is answered.
  bool drains_consume = false;            // Draining is sent on the stream that is open.
  int breaks_subscribe_after = -1;        // Messages.
  bool hides_dequeue = false;             // Dequeue and Consume deliver nothing while true. Not a fault: stays.
};

class FakeServer {
 public:
  FakeServer();
  ~FakeServer();
  FakeServer(const FakeServer&) = delete;
  FakeServer& operator=(const FakeServer&) = delete;

  std::string address() const;
  // Ends all connections and listens again on the same port, with the same state.
  void Restart();
  void Stop();

  void AddMessages(const std::string& queue, const std::vector<std::string>& bodies);
  void AddTopicMessages(const std::string& topic, const std::vector<std::string>& bodies);
  // Runs `function` under the lock and wakes up whoever waits for its changes.
  void With(const std::function<void(FakeState&)>& function);
  // Waits until it is true. False after 20 s, when something is broken.
  bool WaitUntil(const std::function<bool(const FakeState&)>& condition);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace postkeeper::cli

#endif  // POSTKEEPER_CLI_FAKE_SERVER_H_
