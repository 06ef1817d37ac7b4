// The only file that knows CLI11.
#include "cli/flags.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_split.h>
#include <absl/strings/strip.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "cli/admin.h"
#include "cli/consume.h"
#include "cli/dequeue.h"
#include "cli/literal_arguments.h"
#include "cli/produce.h"
#include "cli/server.h"
#include "cli/subscribe.h"
#include "cli/text.h"

namespace postkeeper::cli {
namespace {

using Run = std::function<ExitCode(CommandContext&)>;

constexpr char kSourceHelp[] = "Queue, or subscription (topics/T/subscriptions/S)";
constexpr char kCommonFooter[] =
    "\nEvery command takes --address, --timeout, --output and --quiet: see postkeeper --help";

// Everything that flags are written into; lives as long as the command that reads it.
struct Flags {
  ParsedCommandLine parsed;
  std::string output = "human";
  Run chosen;
  bool drains_on_signals = false;

  QueueSettings queue;
  TopicSettings topic;
  UpdateOptions update;
  DeleteOptions deletion;
  std::string name_space;
  bool takes_leased_too = false;
  ProduceOptions produce;
  DequeueOptions dequeue;
  NackOptions nack;
  std::optional<Duration> extension;
  ConsumeOptions consume;
  SubscribeOptions subscribe;
  std::string source;
  std::string health_service;
  bool asks_for_liveness = false;
};

// CLI11 wants "" for right, and a sentence for wrong.
template <typename Parse>
auto Checked(Parse parse) {
  return [parse](const std::string& text) { return std::string(parse(text).status().message()); };
}

CLI::Option* AddDuration(CLI::App& app, const std::string& name, std::optional<Duration>& target,
                         const std::string& help) {
  return app
      .add_option_function<std::string>(
          name, [&target](const std::string& text) { target = *ParseDuration(text); }, help)
      ->check(CLI::Validator(Checked(ParseDuration), ""))
      ->type_name("DURATION");
}

void AddDuration(CLI::App& app, const std::string& name, Duration& target, const std::string& help) {
  app.add_option_function<std::string>(
         name, [&target](const std::string& text) { target = *ParseDuration(text); }, help)
      ->check(CLI::Validator(Checked(ParseDuration), ""))
      ->default_str(FormatDuration(target))
      ->type_name("DURATION");
}

void AddBytes(CLI::App& app, const std::string& name, std::optional<std::int64_t>& target, const std::string& help) {
  app.add_option_function<std::string>(
         name, [&target](const std::string& text) { target = *ParseBytes(text); }, help)
      ->check(CLI::Validator(Checked(ParseBytes), ""))
      ->type_name("SIZE");
}

// Like CLI::Range, but without the bounds in each line of help.
CLI::Validator Within(std::int64_t min, std::int64_t max) {
  return CLI::Validator(
      [min, max](const std::string& text) {
        std::int64_t number = 0;
        const bool is_right = absl::SimpleAtoi(text, &number) && number >= min && number <= max;
        return is_right ? std::string() : Cat("'", ForTerminal(text, false), "' is no number from ", min, " to ", max);
      },
      "");
}

constexpr std::int64_t kCountMax = std::int64_t{1} << 53;

template <typename Number>
void AddCount(CLI::App& app, const std::string& name, std::optional<Number>& target, std::int64_t max,
              const std::string& help) {
  app.add_option(name, target, help)->check(Within(1, max))->type_name("N");
}

CLI::App& AddCommand(CLI::App& parent, Flags& flags, const std::string& name, const std::string& what,
                     const std::string& examples, Run run) {
  CLI::App& command = *parent.add_subcommand(name, what);
  command.footer(Cat("Examples:\n", examples, kCommonFooter));
  command.callback([&flags, run = std::move(run)] { flags.chosen = run; });
  return command;
}

void AddQueueSettings(CLI::App& command, QueueSettings& queue) {
  command.add_option("QUEUE", queue.name, "The queue")->required();
  AddDuration(command, "--lease-duration", queue.lease_duration,
              "How long a consumer may hold a message (default 30s)");
  AddCount(command, "--max-attempts", queue.max_attempts, 1000,
           "Attempts before the dead-letter queue (not served yet)");
  command.add_option("--dead-letter-queue", queue.dead_letter_queue,
                     "Where messages go after the last attempt (not served yet)");
  AddDuration(command, "--retry-backoff", queue.retry_backoff, "Wait after the first failed attempt (default 1s)");
  AddDuration(command, "--retry-backoff-max", queue.retry_backoff_max, "The longest wait (default 10m)");
  AddCount(command, "--max-messages", queue.max_messages, kCountMax, "Messages it holds (default 1000000)");
  AddBytes(command, "--max-bytes", queue.max_bytes, "Bytes it holds (default 256MiB)");
}

void AddTopicSettings(CLI::App& command, TopicSettings& topic) {
  command.add_option("TOPIC", topic.name, "The topic")->required();
  AddDuration(command, "--retention", topic.retention, "How long messages are kept (default 24h)");
  AddCount(command, "--max-messages", topic.max_messages, kCountMax, "Messages kept (default 1000000)");
  AddBytes(command, "--max-bytes", topic.max_bytes, "Bytes kept (default 256MiB)");
}

void AddUpdateOptions(CLI::App& command, UpdateOptions& update) {
  command.add_option("--etag", update.etag, "Only if it still has this etag, as `show` printed it");
  command.add_flag("--create", update.creates_if_missing, "Create it if it is missing");
}

void AddDeleteOptions(CLI::App& command, const std::string& kind, DeleteOptions& deletion) {
  command.add_option(kind, deletion.name, "What to delete")->required();
  command.add_option("--etag", deletion.etag, "Only if it still has this etag, as `show` printed it");
  command.add_flag("--if-exists", deletion.allows_missing, "No failure if it is gone already");
}

void AddNamespace(CLI::App& command, Flags& flags) {
  command.add_option("--namespace", flags.name_space, "Of this namespace (default: default)");
}

void AddQueueCommands(CLI::App& app, Flags& flags) {
  CLI::App& queue = *app.add_subcommand("queue", "Create, list, show, update, purge and delete queues");
  queue.require_subcommand(1)->fallthrough();
  queue.footer("Examples:\n  postkeeper queue create orders\n  postkeeper queue COMMAND --help");
  CLI::App& create = AddCommand(queue, flags, "create", "Create a queue; with the same settings again: fine",
                                "  postkeeper queue create orders\n"
                                "  postkeeper queue create orders --lease-duration 1m --max-messages 50000",
                                [&flags](CommandContext& context) { return CreateQueue(flags.queue, context); });
  AddQueueSettings(create, flags.queue);
  CLI::App& list = AddCommand(queue, flags, "ls", "List the queues of a namespace",
                              "  postkeeper queue ls\n  postkeeper queue ls --output json",
                              [&flags](CommandContext& context) { return ListQueues(flags.name_space, context); });
  AddNamespace(list, flags);
  CLI::App& show = AddCommand(queue, flags, "show", "Show the settings of a queue", "  postkeeper queue show orders",
                              [&flags](CommandContext& context) { return ShowQueue(flags.queue.name, context); });
  show.add_option("QUEUE", flags.queue.name, "The queue")->required();
  CLI::App& update =
      AddCommand(queue, flags, "update", "Change the settings that are given, and no others",
                 "  postkeeper queue update orders --retry-backoff 5s\n"
                 "  postkeeper queue update orders --lease-duration 2m --create",
                 [&flags](CommandContext& context) { return UpdateQueue(flags.queue, flags.update, context); });
  AddQueueSettings(update, flags.queue);
  AddUpdateOptions(update, flags.update);
  CLI::App& purge = AddCommand(
      queue, flags, "purge", "Drop the messages that are in a queue now",
      "  postkeeper queue purge orders\n  postkeeper queue purge orders --leased-too",
      [&flags](CommandContext& context) { return PurgeQueue(flags.queue.name, flags.takes_leased_too, context); });
  purge.add_option("QUEUE", flags.queue.name, "The queue")->required();
  purge.add_flag("--leased-too", flags.takes_leased_too, "Also those that consumers hold");
  CLI::App& remove = AddCommand(queue, flags, "rm", "Delete a queue with all its messages",
                                "  postkeeper queue rm orders\n  postkeeper queue rm orders --if-exists",
                                [&flags](CommandContext& context) { return DeleteQueue(flags.deletion, context); });
  AddDeleteOptions(remove, "QUEUE", flags.deletion);
}

void AddTopicCommands(CLI::App& app, Flags& flags) {
  CLI::App& topic = *app.add_subcommand("topic", "Create, list, show, update and delete topics");
  topic.require_subcommand(1)->fallthrough();
  topic.footer("Examples:\n  postkeeper topic create news\n  postkeeper topic COMMAND --help");
  CLI::App& create = AddCommand(topic, flags, "create", "Create a topic; with the same settings again: fine",
                                "  postkeeper topic create news\n  postkeeper topic create news --retention 7d",
                                [&flags](CommandContext& context) { return CreateTopic(flags.topic, context); });
  AddTopicSettings(create, flags.topic);
  CLI::App& list = AddCommand(topic, flags, "ls", "List the topics of a namespace", "  postkeeper topic ls",
                              [&flags](CommandContext& context) { return ListTopics(flags.name_space, context); });
  AddNamespace(list, flags);
  CLI::App& show = AddCommand(topic, flags, "show", "Show the settings of a topic", "  postkeeper topic show news",
                              [&flags](CommandContext& context) { return ShowTopic(flags.topic.name, context); });
  show.add_option("TOPIC", flags.topic.name, "The topic")->required();
  CLI::App& update = AddCommand(topic, flags, "update", "Change the settings that are given, and no others",
                                "  postkeeper topic update news --retention 2d", [&flags](CommandContext& context) {
                                  return UpdateTopic(flags.topic, flags.update, context);
                                });
  AddTopicSettings(update, flags.topic);
  AddUpdateOptions(update, flags.update);
  CLI::App& remove = AddCommand(topic, flags, "rm", "Delete a topic with all its messages and subscriptions",
                                "  postkeeper topic rm news",
                                [&flags](CommandContext& context) { return DeleteTopic(flags.deletion, context); });
  AddDeleteOptions(remove, "TOPIC", flags.deletion);
}

void AddProduceOptions(CLI::App& command, ProduceOptions& produce) {
  command.add_option("BODY", produce.input.bodies, "One message each; none: read --file, or standard input");
  command.add_option("--file", produce.input.files, "A message per line of this file; - is standard input")
      ->allow_extra_args(false);
  command.add_flag("--whole", produce.input.takes_whole_files,
                   "One message per file (or standard input), byte for byte");
  command.add_flag("--skip-empty", produce.input.skips_empty_lines, "No message for an empty line");
  command
      .add_option_function<std::vector<std::string>>(
          "--attribute",
          [&produce](const std::vector<std::string>& pairs) {
            for (const std::string& pair : pairs) {
              const std::pair<std::string, std::string> attribute = absl::StrSplit(pair, absl::MaxSplits('=', 1));
              produce.attributes.insert_or_assign(attribute.first, attribute.second);
            }
          },
          "An attribute of every message; may be repeated")
      ->allow_extra_args(false)
      ->check(CLI::Validator(
          [](const std::string& text) -> std::string {
            const bool is_right = text.find('=') != std::string::npos && text[0] != '=' && IsValidUtf8(text);
            return is_right ? "" : Cat("'", ForTerminal(text, false), "' is not name=value");
          },
          ""))
      ->type_name("NAME=VALUE");
  command.add_option("--content-type", produce.content_type, "MIME type of every body");
  CLI::Option* delay = AddDuration(command, "--delay", produce.delay, "Deliver not before so long from now");
  command
      .add_option_function<std::string>(
          "--deliver-at", [&produce](const std::string& text) { produce.deliver_at = *ParseTime(text); },
          "Deliver not before this time, e.g. 2030-01-31T12:00:00Z")
      ->check(CLI::Validator(Checked(ParseTime), ""))
      ->type_name("TIME")
      ->excludes(delay);
  command
      .add_option("--request-id", produce.request_id, "Repeat the same command with it, and nothing is written twice")
      ->check(CLI::Validator(
          [](const std::string& text) {
            const bool is_right = !text.empty() && text.size() <= kRequestIdBytesMax && IsValidUtf8(text);
            return is_right ? std::string() : Cat("it needs 1 to ", kRequestIdBytesMax, " bytes of text");
          },
          ""))
      ->type_name("ID");
  command
      .add_option("--dedup-id", produce.dedup_id,
                  "Write the message only if none with it was written lately; of several: ID, ID.1, ID.2 ...")
      ->check(CLI::Validator(
          [](const std::string& text) {
            const bool is_right = !text.empty() && text.size() <= kDedupIdBytesMax && IsValidUtf8(text);
            return is_right ? std::string() : Cat("it needs 1 to ", kDedupIdBytesMax, " bytes of text");
          },
          ""))
      ->type_name("ID");
}

void AddProduceCommands(CLI::App& app, Flags& flags) {
  CLI::App& enqueue = AddCommand(app, flags, "enqueue", "Put messages into a queue; done means durable",
                                 "  postkeeper enqueue orders 'order 1' 'order 2'\n"
                                 "  postkeeper enqueue orders --file orders.txt\n"
                                 "  tail -f app.log | postkeeper enqueue logs\n"
                                 "  postkeeper enqueue images --whole --file cat.png --content-type image/png\n"
                                 "  postkeeper enqueue orders 'later' --delay 10m --attribute kind=reminder\n"
                                 "  postkeeper enqueue orders -- '-5'      a body that begins with -",
                                 [&flags](CommandContext& context) { return Enqueue(flags.produce, context); });
  enqueue.add_option("QUEUE", flags.produce.target, "The queue")->required();
  AddProduceOptions(enqueue, flags.produce);
  CLI::App& publish = AddCommand(app, flags, "publish", "Put messages onto a topic, for all its readers",
                                 "  postkeeper publish news 'hello, all'\n"
                                 "  postkeeper publish news --file headlines.txt --attribute lang=en",
                                 [&flags](CommandContext& context) { return Publish(flags.produce, context); });
  publish.add_option("TOPIC", flags.produce.target, "The topic")->required();
  AddProduceOptions(publish, flags.produce);
}

void AddSettleOptions(CLI::App& command, SettleOptions& settle) {
  command.add_option("SOURCE", settle.source, kSourceHelp)->required();
  command
      .add_option("TOKEN", settle.tokens,
                  "Lease tokens, as dequeue --output json printed them; - reads them from "
                  "standard input")
      ->required();
}

void AddTakingCommands(CLI::App& app, Flags& flags) {
  CLI::App& dequeue = AddCommand(app, flags, "dequeue", "Take messages, print them, and lease or ack them",
                                 "  postkeeper dequeue orders --ack\n"
                                 "  postkeeper dequeue orders --max 10 --wait 30s --output json\n"
                                 "Exits with 3 if there is no message.",
                                 [&flags](CommandContext& context) { return Dequeue(flags.dequeue, context); });
  dequeue.add_option("SOURCE", flags.dequeue.source, kSourceHelp)->required();
  dequeue.add_option("--max", flags.dequeue.max_messages, "Take up to so many (default 1)")
      ->check(Within(1, 1000))
      ->type_name("N");
  AddDuration(dequeue, "--wait", flags.dequeue.wait, "How long to wait for the first, at most 60s");
  AddDuration(dequeue, "--lease", flags.dequeue.lease_duration, "How long to hold them (default: the queue's)");
  dequeue.add_flag("--ack", flags.dequeue.acks, "Ack what was printed");
  CLI::App& ack = AddCommand(app, flags, "ack", "Settle messages as done",
                             "  postkeeper ack orders TOKEN\n"
                             "  postkeeper dequeue orders --output json | jq -r .lease_token | postkeeper ack orders -",
                             [&flags](CommandContext& context) { return Ack(flags.nack.settle, context); });
  AddSettleOptions(ack, flags.nack.settle);
  CLI::App& nack = AddCommand(app, flags, "nack", "Give messages back, to be tried again",
                              "  postkeeper nack orders TOKEN --delay 5m --reason 'no stock'\n"
                              "  postkeeper nack orders TOKEN --release",
                              [&flags](CommandContext& context) { return Nack(flags.nack, context); });
  AddSettleOptions(nack, flags.nack.settle);
  CLI::Option* release =
      nack.add_flag("--release", flags.nack.releases, "It was not tried: does not count as an attempt");
  CLI::Option* reject =
      nack.add_flag("--reject", flags.nack.rejects, "Never again: to the dead-letter queue (not served yet)");
  reject->excludes(release);
  AddDuration(nack, "--delay", flags.nack.delay, "Try again not before so long from now")->excludes(reject);
  nack.add_option("--reason", flags.nack.reason, "Kept with the message, shown at the next attempt");
  CLI::App& extend =
      AddCommand(app, flags, "extend", "Hold messages for longer", "  postkeeper extend orders TOKEN --lease 5m",
                 [&flags](CommandContext& context) { return Extend(flags.nack.settle, flags.extension, context); });
  AddSettleOptions(extend, flags.nack.settle);
  AddDuration(extend, "--lease", flags.extension, "From now on for so long (default: the queue's)");
}

void AddConsume(CLI::App& app, Flags& flags) {
  ConsumeOptions& options = flags.consume;
  CLI::App& consume = AddCommand(
      app, flags, "consume", "Work on messages as they come: print and ack them, or run a command on each",
      "  postkeeper consume orders\n"
      "  postkeeper consume orders --exec './handle-order' --parallel 4\n"
      "  postkeeper consume lines --exec 'wc -w' --publish-output counts --until-empty\n"
      "Without --exec a message counts as done when it was written to standard output, whoever reads it there: of\n"
      "`postkeeper consume orders | head -1` more than the first is gone. For one message: --count 1.\n"
      "The command gets the body on its standard input and the rest in its environment: POSTKEEPER_SOURCE,\n"
      "POSTKEEPER_MESSAGE_ID, POSTKEEPER_ATTEMPT, POSTKEEPER_CONTENT_TYPE, and each attribute NAME as\n"
      "POSTKEEPER_ATTRIBUTE_NAME. Exit 0 acks the message; anything else gives it back, to be tried again.\n"
      "Its lease is kept while the command runs. SIGTERM or Ctrl-C: takes no more, lets the running commands\n"
      "finish, settles, exits with 0. A second one kills the commands and exits at once.",
      [&flags](CommandContext& context) { return Consume(flags.consume, context); });
  consume.preparse_callback([&flags](std::size_t) { flags.drains_on_signals = true; });
  consume.add_option("SOURCE", options.source, kSourceHelp)->required();
  CLI::Option* exec = consume.add_option("--exec", options.command, "Run this for each message (by /bin/sh -c)");
  exec->check(
          CLI::Validator([](const std::string& text) { return std::string(text.empty() ? "it is empty" : ""); }, ""))
      ->type_name("CMD");
  consume.add_option("--parallel", options.parallel, "Commands at a time (default 1)")
      ->check(Within(1, kParallelMax))
      ->needs(exec)
      ->type_name("N");
  consume
      .add_option("--prefetch", options.prefetch,
                  "Messages to hold beside those being worked on (default 100 when printing, else as\n"
                  "--parallel); more is faster, and gives other consumers less")
      ->check(Within(0, kPrefetchMax))
      ->type_name("N");
  consume
      .add_option("--publish-output", options.output_topic,
                  "Publish what the command prints, before the ack, with "
                  "the attribute source-message-id")
      ->needs(exec)
      ->type_name("TOPIC");
  AddDuration(consume, "--lease", options.lease_duration,
              "How long a message stays ours if we die (default: the queue's)");
  consume.add_option("--count", options.count, "End after so many messages")
      ->check(Within(1, kCountMax))
      ->type_name("N");
  AddDuration(consume, "--idle-exit", options.idle_exit, "End when no message came for so long");
  consume.add_flag("--until-empty", options.ends_when_empty, "End when nothing is ready, delayed or held by others");
}

void AddSubscribe(CLI::App& app, Flags& flags) {
  SubscribeOptions& options = flags.subscribe;
  CLI::App& subscribe = AddCommand(app, flags, "subscribe", "Print the messages of a topic as they come",
                                   "  postkeeper subscribe news\n"
                                   "  postkeeper subscribe news --from earliest --until-caught-up\n"
                                   "  postkeeper subscribe news --from 10m --output json\n"
                                   "  postkeeper subscribe news --from POSITION",
                                   [&flags](CommandContext& context) { return Subscribe(flags.subscribe, context); });
  subscribe.preparse_callback([&flags](std::size_t) { flags.drains_on_signals = true; });
  subscribe.add_option("TOPIC", options.topic, "The topic")->required();
  subscribe
      .add_option("--from", options.from,
                  "latest (default), earliest, a position (then behind it), a time, or 10m for ten minutes ago")
      ->check(CLI::Validator([](const std::string& text) { return CheckFrom(text); }, ""))
      ->type_name("START");
  subscribe.add_option("--count", options.count, "End after so many messages")
      ->check(Within(1, kCountMax))
      ->type_name("N");
  subscribe.add_flag("--until-caught-up", options.stops_when_caught_up, "End when all that is there was printed");
}

void AddServerCommands(CLI::App& app, Flags& flags) {
  CLI::App& stats = AddCommand(app, flags, "stats", "How much a queue holds and how fast it moves",
                               "  postkeeper stats orders\n  postkeeper stats orders --output json",
                               [&flags](CommandContext& context) { return ShowStats(flags.source, context); });
  stats.add_option("SOURCE", flags.source, kSourceHelp)->required();
  CLI::App& health =
      AddCommand(app, flags, "health", "Is the server there and ready? Exits with 0 if so, 1 if not, 5 if unreachable",
                 "  postkeeper health\n  postkeeper health --liveness\n"
                 "  postkeeper health --service postkeeper.v1.MessageService",
                 [&flags](CommandContext& context) {
                   return ShowHealth(flags.asks_for_liveness ? "liveness" : flags.health_service, context);
                 });
  CLI::Option* service = health.add_option("--service", flags.health_service, "Ask for this gRPC service");
  health.add_flag("--liveness", flags.asks_for_liveness, "Ask whether the process works, whatever ZooKeeper does")
      ->excludes(service);
  AddCommand(app, flags, "server", "Version, limits, and what the server does not serve", "  postkeeper server",
             [](CommandContext& context) { return ShowServer(context); });
  AddCommand(app, flags, "version", "The versions of this program, of its API and of the stored format",
             "  postkeeper version\n  postkeeper version --output json", ShowVersion);
}

void AddClusterCommands(CLI::App& app, Flags& flags) {
  CLI::App& cluster = *app.add_subcommand("cluster", "Look at the replicas");
  cluster.require_subcommand(1)->fallthrough();
  cluster.footer("Examples:\n  postkeeper cluster ls\n  postkeeper cluster COMMAND --help");
  AddCommand(cluster, flags, "ls", "List the replicas that are there, and how many queues and topics each owns",
             "  postkeeper cluster ls\n  postkeeper cluster ls --output json\n"
             "One that crashed is listed until its ZooKeeper session has expired.",
             ListReplicas);
}

void AddGlobalOptions(CLI::App& app, Flags& flags) {
  app.set_version_flag("--version", std::string(absl::StripSuffix(VersionText(), "\n")),
                       "Print what `postkeeper version` prints, and exit");
  app.add_option("--address", flags.parsed.connection.address,
                 "Where postkeeperd listens (default $POSTKEEPER_ADDRESS, else 127.0.0.1:7411)")
      ->check(CLI::Validator(CheckAddress, ""))
      ->type_name("HOST:PORT");
  app.add_option_function<std::string>(
         "--timeout",
         [&flags](const std::string& text) { flags.parsed.connection.call_timeout = *ParseDuration(text); },
         "How long one call may take, at most 30s (default 30s)")
      ->check(CLI::Validator(
          [](const std::string& text) -> std::string {
            const absl::StatusOr<Duration> timeout = ParseDuration(text);
            if (!timeout.ok()) return std::string(timeout.status().message());
            const bool is_right = *timeout > Duration::zero() && *timeout <= std::chrono::seconds(30);
            return is_right ? "" : Cat(text, " is not within 1ms and 30s");
          },
          ""))
      ->type_name("DURATION");
  app.add_option("--output", flags.output, "human (default) or json, one object per line")
      ->check(CLI::IsMember({"human", "json"}))
      ->type_name("FORMAT");
  app.add_flag("-q,--quiet", flags.parsed.is_quiet, "Print only what was asked for, and errors");
}

// The most specific command that was given.
const CLI::App& NamedCommand(const CLI::App& app) {
  const CLI::App* named = &app;
  while (!named->get_subcommands().empty()) named = named->get_subcommands().front();
  return *named;
}

// For "See: ... --help".
std::string FullName(const CLI::App& command) {
  const CLI::App* parent = command.get_parent();
  return parent == nullptr ? command.get_name() : Cat(FullName(*parent), " ", command.get_name());
}

void Unmark(const LiteralArguments& literal, Flags& flags) {
  for (std::string* text :
       {&flags.queue.name, &flags.topic.name, &flags.deletion.name, &flags.produce.target, &flags.dequeue.source,
        &flags.nack.settle.source, &flags.consume.source, &flags.subscribe.topic, &flags.source}) {
    literal.Unmark(*text);
  }
  for (std::string& body : flags.produce.input.bodies) literal.Unmark(body);
  for (std::string& token : flags.nack.settle.tokens) literal.Unmark(token);
}

// What the flags' own checks cannot see.
std::string CheckTogether(const Flags& flags) {
  const InputOptions& input = flags.produce.input;
  if (!input.bodies.empty() && (!input.files.empty() || input.takes_whole_files)) {
    return "bodies on the command line go neither with --file nor with --whole";
  }
  if (flags.dequeue.wait > std::chrono::seconds(60)) return "--wait is above 60s";
  return "";
}

}  // namespace

ParsedCommandLine ParseCommandLine(int argc, const char* const* argv) {
  const auto flags = std::make_shared<Flags>();
  CLI::App app("postkeeper: durable queues and publish/subscribe", "postkeeper");
  app.require_subcommand(1)->fallthrough();
  app.footer(
      "Examples:\n"
      "  postkeeper queue create orders\n"
      "  postkeeper enqueue orders 'hello'\n"
      "  postkeeper dequeue orders --ack\n"
      "  postkeeper COMMAND --help      what a command takes, with examples\n"
      "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 nothing there, 4 not found, 5 unreachable");
  app.get_formatter()->column_width(34);
  AddGlobalOptions(app, *flags);
  AddQueueCommands(app, *flags);
  AddTopicCommands(app, *flags);
  AddProduceCommands(app, *flags);
  AddTakingCommands(app, *flags);
  AddConsume(app, *flags);
  AddSubscribe(app, *flags);
  AddServerCommands(app, *flags);
  AddClusterCommands(app, *flags);

  const LiteralArguments literal(argc, argv);
  ParsedCommandLine& parsed = flags->parsed;
  const auto usage_error = [&](std::string_view why) {
    parsed.exit_code = ExitCode::kUsage;
    parsed.text = Cat("postkeeper: ", ForTerminal(why, false), ". See: ", FullName(NamedCommand(app)), " --help\n");
    return parsed;
  };
  try {
    app.parse(literal.Reversed());
    Unmark(literal, *flags);
  } catch (const CLI::ParseError& error) {
    const CLI::App& named = NamedCommand(app);
    const std::vector<std::string> unknown = app.remaining(true);
    if (error.get_exit_code() != 0 && !unknown.empty() && named.get_require_subcommand_min() > 0) {
      return usage_error(Cat("there is no command '", unknown.front(), "'"));
    }
    if (error.get_exit_code() != 0) return usage_error(error.what());
    std::ostringstream help;
    app.exit(error, help, help);
    parsed.text = help.str();
    return parsed;
  }
  if (!flags->chosen) return parsed;
  if (const std::string wrong = CheckTogether(*flags); !wrong.empty()) return usage_error(wrong);
  // Not left to CLI11, which would blame the flag for a wrong variable.
  const char* address = std::getenv("POSTKEEPER_ADDRESS");
  if (address != nullptr && *address != '\0' && app.get_option("--address")->count() == 0) {
    if (const std::string wrong = CheckAddress(address); !wrong.empty()) {
      return usage_error(Cat("POSTKEEPER_ADDRESS: ", wrong));
    }
    parsed.connection.address = address;
  }
  parsed.format = flags->output == "json" ? OutputFormat::kJson : OutputFormat::kHuman;
  parsed.drains_on_signals = flags->drains_on_signals;
  ParsedCommandLine result = parsed;
  result.run = [flags](CommandContext& context) { return flags->chosen(context); };
  return result;
}

}  // namespace postkeeper::cli
