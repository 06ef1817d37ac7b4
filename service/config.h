// How postkeeperd is told what to do: flags, environment, file.
#ifndef POSTKEEPER_SERVICE_CONFIG_H_
#define POSTKEEPER_SERVICE_CONFIG_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "service/logging.h"
#include "zkstore/environment.h"

namespace postkeeper {

// Where a value came from, weakest first.
enum class Origin { kDefault, kComputed, kFile, kEnvironment, kFlag };

// One knob as it stands: its name (without the dashes), its value as one would type it, and its origin.
struct Setting {
  std::string name;
  std::string value;
  Origin origin = Origin::kDefault;
};

// Everything that can be configured, checked against its bounds and against one another. What each one means, its
// unit, default, bounds and their reasons: knobs.cc, or `postkeeperd --help`.
struct Config {
  std::string listen;
  std::string metrics_listen;  // empty = off
  std::string advertise;       // empty = DefaultAdvertisedAddress; never every address
  std::string zookeeper;       // host:port,...[/chroot]; empty = embedded
  std::string root;
  std::string data_dir;  // absolute
  bool auto_create_is_on = false;
  int threads = 0;
  Duration session_timeout{};
  Duration balance_after{};
  Duration drain_timeout{};
  LogLevel log_level = LogLevel::kInfo;
  LogFormat log_format = LogFormat::kText;

  std::int64_t message_bytes_max = 0;
  std::int64_t batch_bytes_max = 0;
  std::int64_t batch_messages_max = 0;
  std::int64_t segment_batches_max = 0;
  std::int64_t appends_in_flight = 0;
  std::int64_t stored_bytes_max = 0;
  std::int64_t cache_bytes_max = 0;
  std::int64_t request_ids_max = 0;
  Duration request_id_window{};
  std::int64_t consumers_max = 0;
  std::int64_t streams_max = 0;
  std::int64_t calls_max = 0;
  std::int64_t metrics_queues_max = 0;

  std::int64_t zookeeper_heap_bytes = 0;  // 0 with --zookeeper
  int embedded_zookeeper_port = 0;

  // Every knob, in the order of the table.
  std::vector<Setting> settings;

  bool zookeeper_is_embedded() const { return zookeeper.empty(); }
};

// What the defaults depend on. Tests make their own.
struct Machine {
  bool is_root = false;
  int cores = 1;
  std::int64_t memory_bytes = 0;  // of the machine or of the control group, whichever is less
  std::string working_directory = "/";
  std::string config_file = "/etc/postkeeper/postkeeper.toml";  // read if it is there and --config names no other
};
Machine ThisMachine();

// The process is to print `text` and to exit: code 0 = to stdout, it was asked for; 2 = to stderr, one line that says
// what is wrong.
struct PrintAndExit {
  std::string text;
  int code = 0;
};

using ConfigOutcome = std::variant<Config, PrintAndExit>;

// Flags win over the environment (POSTKEEPER_LISTEN for --listen), that over the file (`listen = "..."`), that over
// defaults. An unknown flag, an unknown variable that begins with POSTKEEPER_ and an unknown key are errors that name
// the nearest known one; so is a value out of bounds or a second value for the same knob.
//
// `arguments` without the program's name. `environment` holds NAME=value, as environ does. Reads the file, if there is
// one; touches nothing else.
ConfigOutcome ParseConfig(std::span<const std::string> arguments, std::span<const std::string> environment,
                          const Machine& machine);
// The same from main's arguments and environ, on this machine.
ConfigOutcome ParseConfig(int argc, const char* const* argv, const char* const* environment);

// What --print-config prints: a file that gives this very configuration, with each value's origin as a comment.
std::string PrintedConfig(const Config& config);

// The least heap that lets a ZooKeeper hold so much, and the reverse. ZooKeeper keeps what is stored, and beside it its
// latest 500 requests (twice, as bytes and as objects); a half more is room for garbage.
std::int64_t HeapBytesFor(std::int64_t stored_bytes, std::int64_t batch_bytes);
std::int64_t StoredBytesFor(std::int64_t heap_bytes, std::int64_t batch_bytes);

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_CONFIG_H_
