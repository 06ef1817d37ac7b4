#include "service/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "service/knobs.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;
using Strings = std::vector<std::string>;

constexpr std::int64_t kMiB = 1 << 20;

class ConfigTest : public ::testing::Test {
 protected:
  ConfigTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "postkeeper-test-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
    machine_.cores = 2;
    machine_.memory_bytes = 64 * 1024 * kMiB;
    machine_.working_directory = "/home/ann";
    machine_.config_file = folder_ + "/postkeeper.toml";
  }
  ~ConfigTest() override { std::filesystem::remove_all(folder_); }

  std::string WriteFile(std::string_view text) {
    std::ofstream(machine_.config_file) << text;
    return machine_.config_file;
  }

  ConfigOutcome Parse(Strings arguments = {}, Strings environment = {}) {
    environment.push_back("HOME=/home/ann");
    return ParseConfig(arguments, environment, machine_);
  }
  Config Accepted(Strings arguments = {}, Strings environment = {}) {
    const ConfigOutcome outcome = Parse(std::move(arguments), std::move(environment));
    const auto* refused = std::get_if<PrintAndExit>(&outcome);
    EXPECT_EQ(refused, nullptr) << refused->text;
    return refused == nullptr ? std::get<Config>(outcome) : Config();
  }
  // The line that is printed.
  std::string Refused(Strings arguments = {}, Strings environment = {}) {
    const ConfigOutcome outcome = Parse(std::move(arguments), std::move(environment));
    const auto* refused = std::get_if<PrintAndExit>(&outcome);
    if (refused == nullptr) return "(it was accepted)";
    EXPECT_EQ(refused->code, 2);
    EXPECT_EQ(refused->text.find('\n'), refused->text.size() - 1) << "more than one line";
    return refused->text.substr(0, refused->text.size() - 1);
  }
  std::string Printed(Strings arguments) {
    const ConfigOutcome outcome = Parse(std::move(arguments));
    const auto* printed = std::get_if<PrintAndExit>(&outcome);
    if (printed == nullptr || printed->code != 0) return "(nothing)";
    return printed->text;
  }
  static const Setting& SettingOf(const Config& config, std::string_view name) {
    for (const Setting& setting : config.settings) {
      if (setting.name == name) return setting;
    }
    ADD_FAILURE() << "no setting " << name;
    return config.settings.front();
  }

  std::string folder_;
  Machine machine_;
};

// Without anything said, the defaults of the design hold.
TEST_F(ConfigTest, Defaults) {
  const Config config = Accepted();
  EXPECT_EQ(config.listen, "127.0.0.1:7411");
  EXPECT_EQ(config.metrics_listen, "127.0.0.1:7412");
  EXPECT_EQ(config.root, "/postkeeper");
  EXPECT_TRUE(config.zookeeper_is_embedded());
  EXPECT_TRUE(config.auto_create_is_on);
  EXPECT_EQ(config.threads, 2);
  EXPECT_EQ(config.session_timeout, std::chrono::seconds(10));
  EXPECT_EQ(config.drain_timeout, std::chrono::seconds(25));
  EXPECT_EQ(config.request_id_window, std::chrono::minutes(10));
  EXPECT_EQ(config.message_bytes_max, 512 * 1024);
  EXPECT_EQ(config.batch_bytes_max, 512 * 1024);
  EXPECT_EQ(config.stored_bytes_max, 1024 * kMiB);
  EXPECT_EQ(config.zookeeper_heap_bytes, 2286 * kMiB);
  EXPECT_EQ(config.log_level, LogLevel::kInfo);
  EXPECT_EQ(config.settings.size(), Knobs().size());
}

// Every knob's default lies within its own bounds, its name is used once, and it explains itself.
TEST_F(ConfigTest, TableIsSound) {
  std::set<std::string_view> names;
  for (const Knob& knob : Knobs()) {
    SCOPED_TRACE(knob.name);
    EXPECT_TRUE(names.insert(knob.name).second);
    EXPECT_GT(knob.what.size(), 30u);
    Config config;
    EXPECT_TRUE(StoreKnob(knob, knob.default_value, &config).ok());
    EXPECT_THAT(HelpText(), HasSubstr(Cat("--", knob.name, "  ", UnitText(knob))));
    EXPECT_THAT(HelpMarkdown(), HasSubstr(Cat("`", EnvironmentName(knob.name), "`")));
  }
}

// A flag wins over the environment, that over the file, that over the default; and each is told apart.
TEST_F(ConfigTest, Precedence) {
  WriteFile("threads = 1\nlog-level = \"debug\"\nroot = '/file'  # why not\nlisten = 127.0.0.1:1\n");
  const Config config = Accepted({"--threads", "3", "--drain-timeout=5s"},
                                 {"POSTKEEPER_THREADS=2", "POSTKEEPER_LOG_LEVEL=warning", "OTHER=1"});
  EXPECT_EQ(config.threads, 3);
  EXPECT_EQ(config.drain_timeout, std::chrono::seconds(5));
  EXPECT_EQ(config.log_level, LogLevel::kWarning);
  EXPECT_EQ(config.root, "/file");
  EXPECT_EQ(config.listen, "127.0.0.1:1");
  EXPECT_EQ(SettingOf(config, "threads").origin, Origin::kFlag);
  EXPECT_EQ(SettingOf(config, "log-level").origin, Origin::kEnvironment);
  EXPECT_EQ(SettingOf(config, "root").origin, Origin::kFile);
  EXPECT_EQ(SettingOf(config, "session-timeout").origin, Origin::kDefault);
  EXPECT_EQ(SettingOf(config, "data-dir").origin, Origin::kComputed);
}

// The file may be named by flag or variable; then it must be there.
TEST_F(ConfigTest, NamedFile) {
  const std::string file = WriteFile("[default]\nthreads = 4\nzookeeper = \"a:2181,b:2181/x\"\n");
  machine_.config_file = folder_ + "/none.toml";
  EXPECT_NE(Accepted().threads, 4);
  EXPECT_EQ(Accepted({"--config", file}).threads, 4);
  EXPECT_EQ(Accepted({}, {"POSTKEEPER_CONFIG=" + file}).zookeeper, "a:2181,b:2181/x");
  EXPECT_EQ(Refused({"--config", folder_ + "/none.toml"}),
            Cat("postkeeperd: cannot read the configuration file ", folder_, "/none.toml: No such file or directory"));
}

// What is unknown is named, and so is what may have been meant.
TEST_F(ConfigTest, UnknownNames) {
  EXPECT_EQ(Refused({"--listn", "x"}),
            "postkeeperd: --listn is not a known flag. Did you mean --listen? See postkeeperd --help");
  EXPECT_EQ(Refused({"--completely-different=1"}),
            "postkeeperd: --completely-different is not a known flag. See postkeeperd --help");
  EXPECT_EQ(Refused({"start"}),
            "postkeeperd: unexpected argument 'start': postkeeperd takes flags only. See postkeeperd --help");
  EXPECT_EQ(Refused({}, {"POSTKEEPER_SESION_TIMEOUT=5s"}),
            "postkeeperd: the environment variable POSTKEEPER_SESION_TIMEOUT is not known. Did you mean "
            "POSTKEEPER_SESSION_TIMEOUT? See postkeeperd --help");
  const std::string file = WriteFile("thread = 2\n");
  EXPECT_EQ(Refused(), Cat("postkeeperd: 'thread' in ", file,
                           " is not a known key. Did you mean threads? See postkeeperd --help"));
  WriteFile("[server]\nthreads = 2\n");
  EXPECT_THAT(Refused(), StartsWith("postkeeperd: 'server.threads' in"));
}

// Variables of the clients, of `consume --exec` and those that Kubernetes makes for a Service are not the server's.
TEST_F(ConfigTest, OtherVariablesAreLeftAlone) {
  Accepted({}, {"POSTKEEPER_ADDRESS=h:1", "POSTKEEPER_MESSAGE_ID=x", "POSTKEEPER_ATTEMPT=2",
                "POSTKEEPER_ATTRIBUTE_COLOUR=red", "POSTKEEPER_PORT=tcp://10.0.0.1:7411",
                "POSTKEEPER_SERVICE_HOST=10.0.0.1", "POSTKEEPER_SERVICE_PORT=7411", "POSTKEEPER_SERVICE_PORT_GRPC=7411",
                "POSTKEEPER_PORT_7411_TCP=tcp://10.0.0.1:7411", "POSTKEEPER_PORT_7411_TCP_ADDR=10.0.0.1",
                "POSTKEEPER_METRICS_PORT_7412_TCP_PROTO=tcp", "POSTKEEPER_METRICS_PORT=tcp://10.0.0.2:7412"});
  EXPECT_THAT(Refused({}, {"POSTKEEPER_PORT=7411"}), HasSubstr("POSTKEEPER_PORT is not known"));
}

// A value that cannot be is refused with where it was said, what is wrong and what is right.
TEST_F(ConfigTest, BadValues) {
  EXPECT_EQ(Refused({"--listen", "7411"}), "postkeeperd: --listen: '7411' is not host:port (such as 127.0.0.1:7411)");
  EXPECT_EQ(Refused({}, {"POSTKEEPER_SESSION_TIMEOUT=1s"}),
            "postkeeperd: POSTKEEPER_SESSION_TIMEOUT: 1s is out of bounds: it is 2s to 1m");
  EXPECT_EQ(Refused({"--session-timeout", "10"}),
            "postkeeperd: --session-timeout: '10' is not a time with its unit (such as 500ms, 10s, 5m, 1h)");
  const std::string file = WriteFile("batch-bytes-max = 1MB\n");
  EXPECT_EQ(Refused(), Cat("postkeeperd: 'batch-bytes-max' in ", file,
                           ": '1MB' is not a size (such as 65536, 64KiB, 2MiB, 1GiB)"));
  WriteFile("");
  EXPECT_EQ(Refused({"--log-format", "xml"}), "postkeeperd: --log-format: 'xml' is not one of text|json");
  EXPECT_EQ(Refused({"--threads", "-1"}), "postkeeperd: --threads: '-1' is not a whole number");
  EXPECT_EQ(Refused({"--listen"}), "postkeeperd: --listen needs a value. See postkeeperd --help");
  EXPECT_EQ(Refused({"--threads=1", "--threads=2"}), "postkeeperd: --threads is given 2 times");
  EXPECT_THAT(Refused({"--segment-batches-max", "1"}), HasSubstr("1 is out of bounds: it is 2 to 16384"));
}

// Each kind of value knows good from bad.
TEST_F(ConfigTest, KindsOfValues) {
  const auto accepts = [](std::string_view knob, std::string_view text) {
    Config config;
    return StoreKnob(*FindKnob(knob), text, &config).ok();
  };
  for (const std::string_view good : {"h:1", "127.0.0.1:0", "[::1]:7411", "a-b.c:65535"}) {
    EXPECT_TRUE(accepts("listen", good)) << good;
  }
  for (const std::string_view bad :
       {"", ":1", "h", "h:", "h:65536", "h:x", "h:-1", "[::1:1", "[x]:1", "a b:1", "off"}) {
    EXPECT_FALSE(accepts("listen", bad)) << bad;
  }
  EXPECT_TRUE(accepts("metrics-listen", "off"));
  for (const std::string_view good : {"", "h:1", "[2001:db8::1]:65535"}) {
    EXPECT_TRUE(accepts("advertise", good)) << good;
  }
  for (const std::string_view bad : {"h", "h:0", ":1", "off"}) EXPECT_FALSE(accepts("advertise", bad)) << bad;
  for (const std::string_view good : {"", "a:1", "a:1,b:2", "a:1,b:2/x/y"}) {
    EXPECT_TRUE(accepts("zookeeper", good)) << good;
  }
  for (const std::string_view bad : {"a", "a:0", "a:1,", "a:1/", "a:1/x//y", "a:1/..", "/x"}) {
    EXPECT_FALSE(accepts("zookeeper", bad)) << bad;
  }
  for (const std::string_view bad : {"", "/", "x", "/x/", "/x y", "/x/.."}) EXPECT_FALSE(accepts("root", bad)) << bad;
  for (const std::string_view good : {"16KiB", "16384", "512 KiB"}) {
    EXPECT_TRUE(accepts("batch-bytes-max", good)) << good;
  }
  for (const std::string_view bad :
       {"", "KiB", "1.5MiB", "0", "9223372036854775807GiB", "99999999999999999999", "+1"}) {
    EXPECT_FALSE(accepts("batch-bytes-max", bad)) << bad;
  }
  EXPECT_FALSE(accepts("listen", "auto"));
  EXPECT_FALSE(accepts("data-dir", "/a\nb"));
}

// Values that do not fit one another are refused together.
TEST_F(ConfigTest, CrossChecks) {
  EXPECT_EQ(Refused({"--message-bytes-max", "128KiB", "--batch-bytes-max", "64KiB"}),
            "postkeeperd: --message-bytes-max 128KiB is more than --batch-bytes-max 64KiB: a message must fit a batch. "
            "Lower the first or raise the second");
  EXPECT_EQ(Refused({"--metrics-listen", "127.0.0.1:7411"}),
            "postkeeperd: --listen and --metrics-listen are both 127.0.0.1:7411. Choose another for the metrics, or "
            "--metrics-listen off");
  for (const std::string host : {"0.0.0.0", "[::]"}) {
    EXPECT_EQ(
        Refused({"--advertise", host + ":7500"}),
        "postkeeperd: --advertise " + host +
            ":7500 means every address, and nobody can connect to that. Name one by which the other replicas reach "
            "this host (such as --advertise 10.0.0.5:7500), or leave it out");
  }
  EXPECT_EQ(Refused({"--zookeeper", "h:1", "--zookeeper-heap", "1GiB"}),
            "postkeeperd: --zookeeper-heap is for the embedded ZooKeeper and means nothing with --zookeeper. Leave one "
            "of them out");
}

// What is accepted for storing always fits the embedded ZooKeeper's heap.
TEST_F(ConfigTest, HeapAndStoredBytesFitOneAnother) {
  // On a small machine the limit is lowered by itself, visibly.
  machine_.memory_bytes = 4096 * kMiB;
  Config config = Accepted();
  EXPECT_EQ(config.zookeeper_heap_bytes, 2048 * kMiB);
  EXPECT_EQ(config.stored_bytes_max, 865 * kMiB);
  EXPECT_EQ(SettingOf(config, "stored-bytes-max").value, "865MiB");
  EXPECT_EQ(SettingOf(config, "stored-bytes-max").origin, Origin::kComputed);
  EXPECT_LE(HeapBytesFor(config.stored_bytes_max, config.batch_bytes_max), config.zookeeper_heap_bytes);
  // Unless somebody insists.
  EXPECT_EQ(Refused({"--stored-bytes-max", "1GiB"}),
            "postkeeperd: --stored-bytes-max 1GiB needs --zookeeper-heap 2286MiB or more; it is 2GiB, half of this "
            "machine's memory. Lower the first or raise the second");
  EXPECT_EQ(
      Refused({"--zookeeper-heap", "256MiB"}),
      "postkeeperd: --zookeeper-heap 256MiB is too small for batches of 512KiB: it must be at least 774MiB. Raise "
      "it or lower --batch-bytes-max");
  // A tiny machine still gets what the smallest store needs.
  machine_.memory_bytes = 512 * kMiB;
  config = Accepted();
  EXPECT_EQ(config.zookeeper_heap_bytes, 774 * kMiB);
  EXPECT_GE(config.stored_bytes_max, 16 * kMiB);
  // With an ensemble of its own size none of this is our business.
  EXPECT_EQ(Accepted({"--zookeeper", "h:1"}).stored_bytes_max, 1024 * kMiB);
}

// The data directory is where one would look for it.
TEST_F(ConfigTest, DataDirectory) {
  EXPECT_EQ(Accepted().data_dir, "/home/ann/.local/share/postkeeper");
  EXPECT_EQ(Accepted({}, {"XDG_DATA_HOME=/xdg"}).data_dir, "/xdg/postkeeper");
  EXPECT_EQ(Accepted({"--data-dir", "here/../there"}).data_dir, "/home/ann/there");
  machine_.is_root = true;
  EXPECT_EQ(Accepted({}, {"XDG_DATA_HOME=/xdg"}).data_dir, "/var/lib/postkeeper");
  machine_.is_root = false;
  const ConfigOutcome outcome = ParseConfig(Strings{}, Strings{}, machine_);
  EXPECT_EQ(std::get<PrintAndExit>(outcome).text,
            "postkeeperd: there is no home directory (HOME) for the data. Name a directory: --data-dir DIR\n");
}

// With an ensemble, unknown names are errors, unless asked otherwise.
TEST_F(ConfigTest, AutoCreateFollowsZooKeeper) {
  EXPECT_FALSE(Accepted({"--zookeeper", "h:1"}).auto_create_is_on);
  EXPECT_TRUE(Accepted({"--zookeeper", "h:1", "--auto-create", "on"}).auto_create_is_on);
  EXPECT_FALSE(Accepted({"--auto-create", "off"}).auto_create_is_on);
  EXPECT_TRUE(Accepted({"--auto-create", "auto"}).auto_create_is_on);
}

// What --print-config prints says where each value is from, and gives the same configuration when read as a file.
TEST_F(ConfigTest, PrintedConfigIsAConfigFile) {
  const Strings said = {"--zookeeper", "a:2181,b:2181/x", "--session-timeout", "4000ms", "--metrics-listen", "off"};
  for (const Strings& arguments : {said, Strings{"--batch-bytes-max", "64KiB", "--message-bytes-max", "64KiB"}}) {
    Strings printing = arguments;
    printing.push_back("--print-config");
    const std::string printed = Printed(printing);
    const Config first = Accepted(arguments);
    machine_.config_file = folder_ + "/none";
    std::ofstream(folder_ + "/printed.toml") << printed;
    const Config again = Accepted({"--config", folder_ + "/printed.toml"});
    ASSERT_EQ(again.settings.size(), first.settings.size());
    for (std::size_t i = 0; i < first.settings.size(); ++i) {
      EXPECT_EQ(again.settings[i].value, first.settings[i].value) << first.settings[i].name;
    }
    EXPECT_EQ(again.zookeeper, first.zookeeper);
    EXPECT_EQ(again.metrics_listen, first.metrics_listen);
    EXPECT_EQ(again.stored_bytes_max, first.stored_bytes_max);
  }
  const std::string printed = Printed({"--session-timeout", "4000ms", "--print-config"});
  EXPECT_THAT(printed, HasSubstr("session-timeout = \"4s\"                            # flag\n"));
  EXPECT_THAT(printed, HasSubstr("listen = \"127.0.0.1:7411\"                         # default\n"));
  EXPECT_THAT(printed, HasSubstr("threads = \"2\"                                     # computed\n"));
}

// Values that the file's reader would misread are refused, not misread.
TEST_F(ConfigTest, HashInAValueIsRefused) {
  const std::string file = WriteFile("data-dir = \"/srv/#1\"\n");
  EXPECT_EQ(Refused(), Cat("postkeeperd: 'data-dir' in ", file, ": a value must not hold # or quotes"));
  WriteFile("threads = 1\nlog-level = info\nthreads = 2\n");
  EXPECT_EQ(Refused(), Cat("postkeeperd: 'threads' in ", file, " is given twice"));
}

// Help and version are printed whatever else is wrong, with exit code 0.
TEST_F(ConfigTest, HelpAndVersion) {
  EXPECT_THAT(Printed({"--help"}), StartsWith("postkeeperd: durable queues"));
  EXPECT_THAT(Printed({"-h"}), HasSubstr("--session-timeout  time (ms, s, m, h); default 10s; 2s to 1m\n"));
  EXPECT_THAT(Printed({"--help-markdown"}), HasSubstr("| text, json |"));
  EXPECT_THAT(Printed({"--version"}),
              ::testing::MatchesRegex("postkeeperd [0-9]+\\.[0-9]+\\.[0-9]+\nAPI: postkeeper\\.v1\nstore format: 1\n"));
  for (const absl::string_view line : absl::StrSplit(Printed({"--help"}), '\n')) EXPECT_LE(line.size(), 110u) << line;
}

}  // namespace
}  // namespace postkeeper
