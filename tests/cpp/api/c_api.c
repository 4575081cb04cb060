/* The C ABI as a C program uses it, on the pair that the package ships: generating in every way
 * gives the same bytes, and every kind of mistake gives its code and a sentence. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gemtp.h"

static char error[256];

#define REQUIRE(condition)                                                        \
  do {                                                                            \
    if (!(condition)) {                                                           \
      fprintf(stderr, "%s:%d: %s (%s)\n", __FILE__, __LINE__, #condition, error); \
      exit(1);                                                                    \
    }                                                                             \
  } while (0)
#define OK(call) REQUIRE((call) == GEMTP_OK)
#define ERR error, sizeof error

static const char kPrompt[] = "def read_lines(path):\n    ";
enum { kTokens = 48 };

/* What came out of a generation, and what its callbacks are to do. */
typedef struct Output {
  char text[8192];
  size_t length;
  int64_t tokens, drafted;
  int64_t stop_at; /* tokens after which the callback stops; 0: never */
  gemtp_session* session;
  int64_t prompt_done, prompt_total, prompt_calls;
} Output;

static void add(Output* out, const gemtp_token* token) {
  REQUIRE(out->length + token->length < sizeof out->text);
  memcpy(out->text + out->length, token->text, token->length);
  out->length += token->length;
  if (token->id < 0) return;
  ++out->tokens;
  REQUIRE((token->source == GEMTP_SOURCE_TARGET) == (token->depth == 0));
  if (token->depth) ++out->drafted;
}

static int on_token(const gemtp_token* token, void* user) {
  Output* out = user;
  REQUIRE(token->size == sizeof *token);
  add(out, token);
  return out->stop_at != 0 && out->tokens == out->stop_at;
}

static int on_prompt(int64_t done, int64_t total, void* user) {
  Output* out = user;
  REQUIRE(done >= out->prompt_done && done <= total);
  out->prompt_done = done;
  out->prompt_total = total;
  ++out->prompt_calls;
  return 0;
}

static gemtp_generate_options options_for(int draft, float temperature, Output* out) {
  gemtp_generate_options options;
  OK(gemtp_generate_options_init(&options, sizeof options));
  options.max_tokens = kTokens;
  options.temperature = temperature;
  options.seed = 7;
  options.draft = draft;
  options.ignore_eos = 1;
  options.on_token = on_token;
  options.on_prompt = on_prompt;
  options.user = out;
  memset(out, 0, sizeof *out);
  return options;
}

static gemtp_session* prompted(gemtp_model* model) {
  gemtp_session* session = NULL;
  OK(gemtp_session_open(model, &session, ERR));
  OK(gemtp_session_append_text(session, kPrompt, GEMTP_STRLEN, GEMTP_ADD_BOS, ERR));
  return session;
}

static gemtp_stats stats_of(gemtp_session* session) {
  gemtp_stats stats;
  stats.size = sizeof stats;
  OK(gemtp_session_stats(session, &stats, ERR));
  return stats;
}

static size_t tokens_of(gemtp_session* session) {
  size_t count;
  OK(gemtp_session_tokens(session, NULL, 0, &count, ERR));
  return count;
}

static void same_text(const Output* a, const Output* b) {
  REQUIRE(a->length > 0 && a->length == b->length && memcmp(a->text, b->text, a->length) == 0);
}

static void generate(gemtp_model* model, int draft, float temperature, Output* out,
                     gemtp_stats* stats) {
  gemtp_generate_options options = options_for(draft, temperature, out);
  gemtp_session* session = prompted(model);
  const size_t prompt = tokens_of(session);
  OK(gemtp_session_generate(session, &options, ERR));
  *stats = stats_of(session);
  REQUIRE(stats->finish == GEMTP_FINISH_LENGTH && stats->tokens == kTokens);
  REQUIRE(out->tokens == kTokens && tokens_of(session) == prompt + kTokens);
  REQUIRE(stats->accepted >= out->drafted);
  REQUIRE(out->prompt_done == (int64_t)prompt && out->prompt_total == (int64_t)prompt);
  gemtp_session_close(session);
}

/* By begin and step. */
static void pull(gemtp_session* session, const gemtp_generate_options* options, Output* out) {
  gemtp_finish finish = GEMTP_UNFINISHED;
  OK(gemtp_session_begin(session, options, ERR));
  while (finish == GEMTP_UNFINISHED) {
    size_t count, i;
    OK(gemtp_session_step(session, &count, &finish, ERR));
    for (i = 0; i < count; ++i) {
      gemtp_token token;
      token.size = sizeof token;
      OK(gemtp_session_emitted(session, i, &token, ERR));
      add(out, &token);
    }
    REQUIRE(gemtp_session_emitted(session, count, NULL, ERR) == GEMTP_ERROR_ARGUMENT);
  }
}

/* GEMTP_RANDOM_SEED draws one, which gives the text again; -1 is no limit, top_k -1 is off and an
 * empty stop string none. */
static void words_for_none(gemtp_model* model) {
  static Output drawn, again;
  static const char* const nothing[] = {""};
  gemtp_generate_options options = options_for(GEMTP_DRAFT_AUTO, 1, &drawn);
  gemtp_session* session = prompted(model);
  gemtp_model_info info;
  const int64_t prompt = (int64_t)tokens_of(session);
  gemtp_stats first, second;
  options.seed = GEMTP_RANDOM_SEED;
  options.top_k = -1;
  OK(gemtp_model_sampling(model, &options, ERR)); /* the file recommends nothing */
  REQUIRE(options.temperature == 1 && options.top_k == -1 && options.seed == GEMTP_RANDOM_SEED);
  REQUIRE(gemtp_model_sampling(model, NULL, ERR) == GEMTP_ERROR_ARGUMENT);
  REQUIRE(gemtp_model_sampling(NULL, &options, ERR) == GEMTP_ERROR_ARGUMENT);
  options.stop = nothing;
  options.stop_count = 1;
  OK(gemtp_session_generate(session, &options, ERR));
  first = stats_of(session);
  OK(gemtp_session_rewind(session, prompt, ERR));
  options = options_for(GEMTP_DRAFT_AUTO, 1, &again);
  options.seed = first.seed;
  OK(gemtp_session_generate(session, &options, ERR));
  same_text(&drawn, &again);
  OK(gemtp_session_rewind(session, prompt, ERR));
  options.seed = GEMTP_RANDOM_SEED;
  options.max_tokens = -1;
  options.on_token = NULL;
  options.on_prompt = NULL;
  OK(gemtp_session_generate(session, &options, ERR));
  second = stats_of(session);
  info.size = sizeof info;
  OK(gemtp_model_describe(model, &info, ERR));
  REQUIRE(first.seed <= UINT32_MAX && second.seed <= UINT32_MAX && first.seed != second.seed);
  REQUIRE(second.finish == GEMTP_FINISH_CONTEXT && prompt + second.tokens == info.context);
  gemtp_session_close(session);
}

static void same_bytes_with_and_without_drafter(gemtp_model* model) {
  static Output plain, drafted, pulled;
  int i;
  for (i = 0; i < 2; ++i) {
    gemtp_stats without, with;
    generate(model, 0, (float)i, &plain, &without);
    generate(model, 4, (float)i, &drafted, &with);
    same_text(&plain, &drafted);
    REQUIRE(without.drafted == 0 && plain.drafted == 0 && with.drafted > 0);
    REQUIRE(with.accepted > 0 && with.accepted <= with.drafted && drafted.drafted > 0);
    REQUIRE(with.rounds < without.rounds);
    REQUIRE(with.depth_histogram[4] > 0 && without.depth_histogram[0] == without.rounds);

    gemtp_generate_options options = options_for(GEMTP_DRAFT_AUTO, (float)i, &pulled);
    gemtp_session* session = prompted(model);
    pull(session, &options, &pulled);
    same_text(&plain, &pulled);
    gemtp_session_close(session);
  }
}

/* Log-probabilities, and logits that a callback changes, are the same with drafts and without. */
typedef struct Chosen {
  Output out;
  int32_t ids[kTokens];
  double logprobs[kTokens];
  int64_t asked, limit;
} Chosen;

static int note_logprob(const gemtp_token* token, void* user) {
  Chosen* c = user;
  REQUIRE(token->logprob <= 0 && token->top_count == 3);
  REQUIRE(token->top[0].logprob >= token->top[1].logprob &&
          token->top[1].logprob >= token->top[2].logprob &&
          token->top[0].logprob >= token->logprob);
  c->ids[c->out.tokens] = token->id;
  c->logprobs[c->out.tokens] = token->logprob;
  add(&c->out, token);
  return 0;
}

static int no_even_tokens(const int32_t* ids, size_t count, float* logits, size_t vocab,
                          void* user) {
  Chosen* c = user;
  size_t i;
  REQUIRE(count > 0 && ids[count - 1] >= 0);
  for (i = 0; i < vocab; i += 2) logits[i] = -1e30f;
  return c->limit && ++c->asked > c->limit;
}

static void logits_are_seen_and_changed(gemtp_model* model) {
  static Chosen runs[2];
  int i;
  for (i = 0; i < 2; ++i) {
    gemtp_session* session = prompted(model);
    gemtp_generate_options options = options_for(4 * i, 1, &runs[i].out);
    options.on_token = note_logprob;
    options.on_logits = no_even_tokens;
    options.on_prompt = NULL;
    options.logprobs = 3;
    options.user = &runs[i];
    OK(gemtp_session_generate(session, &options, ERR));
    REQUIRE(runs[i].out.tokens == kTokens);
    runs[i].limit = 5;
    REQUIRE(gemtp_session_rewind(session, 4, ERR) == GEMTP_OK);
    runs[i].out.tokens = 0;
    REQUIRE(gemtp_session_generate(session, &options, ERR) == GEMTP_ERROR_CANCELLED);
    REQUIRE(runs[i].out.tokens < 8);
    options.logprobs = 21;
    REQUIRE(gemtp_session_generate(session, &options, ERR) == GEMTP_ERROR_ARGUMENT);
    gemtp_session_close(session);
  }
  REQUIRE(memcmp(runs[0].logprobs + 8, runs[1].logprobs + 8, sizeof(double) * (kTokens - 8)) == 0);
  for (i = 8; i < kTokens; ++i) REQUIRE(runs[0].ids[i] % 2 == 1);
  REQUIRE(runs[0].logprobs[9] != runs[0].logprobs[10]);
}

/* A constraint: the n-th token generated is n % 5 behind a multiple of 5, and every fourth is
 * certain. */
typedef struct Rule {
  int64_t n, pushed, popped;
  int fail;
} Rule;

static int rule_push(const int32_t* ids, size_t n, void* user) {
  Rule* r = user;
  size_t i;
  for (i = 0; i < n; ++i) REQUIRE(ids[i] % 5 == (r->n + (int64_t)i) % 5);
  r->n += (int64_t)n;
  r->pushed += (int64_t)n;
  return 0;
}

static int rule_pop(size_t n, void* user) {
  Rule* r = user;
  REQUIRE((int64_t)n <= r->n);
  r->n -= (int64_t)n;
  r->popped += (int64_t)n;
  return 0;
}

static int rule_mask(uint32_t* words, size_t n, void* user) {
  const Rule* r = user;
  const int32_t only = (int32_t)(300 + r->n % 5);
  size_t id;
  if (r->n % 4 == 3)
    words[only / 32] |= (uint32_t)1 << only % 32;
  else
    for (id = (size_t)(r->n % 5); id < 32 * n; id += 5) words[id / 32] |= (uint32_t)1 << id % 32;
  return r->fail && r->n >= r->fail;
}

static size_t rule_forced(int32_t* ids, size_t capacity, void* user) {
  const Rule* r = user;
  REQUIRE(capacity > 0);
  if (r->n % 4 != 3) return 0;
  ids[0] = (int32_t)(300 + r->n % 5);
  return 1;
}

static void constraints_are_kept(gemtp_model* model) {
  static Output free_of_drafts, drafted;
  Rule rules[2];
  gemtp_constraint constraint = {sizeof constraint, rule_push, rule_pop, rule_mask,
                                 rule_forced,       NULL,      NULL};
  int i;
  memset(rules, 0, sizeof rules);
  for (i = 0; i < 2; ++i) {
    Output* out = i ? &drafted : &free_of_drafts;
    gemtp_session* session = prompted(model);
    const size_t prompt = tokens_of(session);
    gemtp_generate_options options = options_for(5 * i, 1, out);
    int32_t ids[128];
    size_t count, at;
    constraint.user = &rules[i];
    options.constraint = &constraint;
    OK(gemtp_session_generate(session, &options, ERR));
    OK(gemtp_session_tokens(session, ids, 128, &count, ERR));
    REQUIRE(count == prompt + kTokens);
    if (i) REQUIRE(stats_of(session).grammar_accepted > 0);
    for (at = 0; at < kTokens; ++at) REQUIRE(ids[prompt + at] % 5 == (int32_t)(at % 5));
    rules[i].n = 0;
    rules[i].fail = 10;
    options.on_token = NULL; /* how many tokens come before it is a matter of drafts */
    REQUIRE(gemtp_session_generate(session, &options, ERR) == GEMTP_ERROR_CANCELLED);
    REQUIRE(strstr(error, "constraint") != NULL);
    constraint.mask = NULL;
    REQUIRE(gemtp_session_generate(session, &options, ERR) == GEMTP_ERROR_ARGUMENT);
    constraint.mask = rule_mask;
    gemtp_session_close(session);
  }
  same_text(&free_of_drafts, &drafted);
  REQUIRE(rules[1].popped > 0);
}

static void text_round_trips(gemtp_model* model) {
  int32_t ids[64];
  char text[128];
  size_t count, with_bos, length;
  OK(gemtp_tokenize(model, kPrompt, strlen(kPrompt), 0, NULL, 0, &count, ERR));
  REQUIRE(count > 0 && count < 64);
  OK(gemtp_tokenize(model, kPrompt, GEMTP_STRLEN, 0, ids, 64, &count, ERR));
  OK(gemtp_tokenize(model, kPrompt, GEMTP_STRLEN, GEMTP_ADD_BOS, NULL, 0, &with_bos, ERR));
  REQUIRE(with_bos == count + 1);
  /* It is not put in front twice, nor read from text that may not spell it. */
  OK(gemtp_tokenize(model, "<bos>a", GEMTP_STRLEN, GEMTP_ADD_BOS | GEMTP_PARSE_SPECIAL, NULL, 0,
                    &with_bos, ERR));
  REQUIRE(with_bos == 2);
  OK(gemtp_tokenize(model, "<bos>a", GEMTP_STRLEN, GEMTP_ADD_BOS, NULL, 0, &with_bos, ERR));
  REQUIRE(with_bos > 2);
  OK(gemtp_detokenize(model, ids, count, text, sizeof text, &length, ERR));
  REQUIRE(length == strlen(kPrompt) && memcmp(text, kPrompt, length) == 0);
  text[2] = '!';
  OK(gemtp_detokenize(model, ids, count, text, 2, &length, ERR));
  REQUIRE(length == strlen(kPrompt) && text[2] == '!');
}

static void a_model_describes_itself(gemtp_model* model, const char* target, const char* drafter) {
  gemtp_model_info info;
  gemtp_memory memory, smaller;
  gemtp_model_options options;
  info.size = sizeof info;
  OK(gemtp_model_describe(model, &info, ERR));
  REQUIRE(info.has_drafter == 1 && info.has_tokenizer == 1);
  REQUIRE(info.has_chat == 1 && info.has_chat_template == 1 && info.completes == 1);
  REQUIRE(info.vocab_size > 0 && info.threads > 0 && info.context > 0 && info.kv_budget > 0);
  REQUIRE(strncmp(info.backend, "cpu/", 4) == 0);
  OK(gemtp_model_options_init(&options, sizeof options));
  options.drafter_path = drafter;
  memory.size = smaller.size = sizeof memory;
  OK(gemtp_memory_estimate(target, &options, &memory, ERR));
  REQUIRE(memory.weights > 0 && memory.kv > 0 && memory.scratch > 0);
  REQUIRE(memory.needed == memory.weights + memory.kv + memory.scratch);
  options.context = 64;
  OK(gemtp_memory_estimate(target, &options, &smaller, ERR));
  REQUIRE(smaller.context == 64 && smaller.kv < memory.kv);
}

static void sessions_go_on(gemtp_model* model, const char* file) {
  static Output whole, first, rest, forked, restored;
  gemtp_stats stats;
  gemtp_session *session, *fork, *read;
  gemtp_generate_options options;
  int32_t ids[256];
  size_t count, i;
  generate(model, 0, 1, &whole, &stats);

  /* The callback stops in the middle of a round: the session ends with what it was given. */
  for (i = 1; i < 12; ++i) {
    options = options_for(6, 1, &first);
    first.stop_at = (int64_t)i;
    session = prompted(model);
    const size_t prompt = tokens_of(session);
    OK(gemtp_session_generate(session, &options, ERR));
    REQUIRE(stats_of(session).finish == GEMTP_FINISH_CANCELLED);
    REQUIRE(first.tokens == (int64_t)i && tokens_of(session) == prompt + i);
    REQUIRE(memcmp(first.text, whole.text, first.length) == 0);

    /* A fork, a file and the session itself go on alike. */
    OK(gemtp_session_fork(session, &fork, ERR));
    OK(gemtp_session_save(session, file, ERR));
    OK(gemtp_session_restore(model, file, &read, ERR));
    options = options_for(6, 1, &rest);
    options.max_tokens = kTokens - (int64_t)i;
    OK(gemtp_session_generate(session, &options, ERR));
    options.user = memset(&forked, 0, sizeof forked);
    OK(gemtp_session_generate(fork, &options, ERR));
    options.user = memset(&restored, 0, sizeof restored);
    OK(gemtp_session_generate(read, &options, ERR));
    same_text(&rest, &forked);
    same_text(&rest, &restored);
    REQUIRE(stats_of(read).cached_tokens + 1 >= (int64_t)(prompt + i) - 1);
    REQUIRE(first.length + rest.length == whole.length);
    REQUIRE(memcmp(rest.text, whole.text + first.length, rest.length) == 0);
    gemtp_session_close(fork);
    gemtp_session_close(read);
    gemtp_session_close(session);
  }

  /* Cut back and assigned, it keeps what is common. */
  session = prompted(model);
  OK(gemtp_session_tokens(session, ids, 256, &count, ERR));
  options = options_for(GEMTP_DRAFT_AUTO, 1, &first);
  OK(gemtp_session_generate(session, &options, ERR));
  OK(gemtp_session_rewind(session, (int64_t)count, ERR));
  options.user = memset(&rest, 0, sizeof rest);
  OK(gemtp_session_generate(session, &options, ERR));
  same_text(&first, &rest);
  REQUIRE(stats_of(session).cached_tokens == (int64_t)count - 1);
  OK(gemtp_session_assign(session, ids, count, ERR));
  options.user = memset(&rest, 0, sizeof rest);
  OK(gemtp_session_generate(session, &options, ERR));
  same_text(&first, &rest);
  OK(gemtp_session_assign(session, NULL, 0, ERR));
  REQUIRE(tokens_of(session) == 0);
  REQUIRE(gemtp_session_generate(session, NULL, ERR) == GEMTP_ERROR_ARGUMENT);
  gemtp_session_close(session);
  REQUIRE(gemtp_session_restore(model, "no/such/file", &read, ERR) == GEMTP_ERROR_FILE);
  remove(file);
  OK(gemtp_model_clear_cache(model, ERR));
}

/* ---- chats ---- */

typedef struct Reply {
  char answer[256], thought[256], name[64], arguments[256];
  int calls, malformed;
} Reply;

static int on_event(const gemtp_reply_event* event, void* user) {
  Reply* r = user;
  REQUIRE(event->size == sizeof *event && event->length > 0);
  if (event->part == GEMTP_PART_CONTENT) strncat(r->answer, event->text, event->length);
  if (event->part == GEMTP_PART_THINKING) strncat(r->thought, event->text, event->length);
  if (event->part == GEMTP_PART_TOOL_CALL) {
    ++r->calls;
    strcpy(r->name, event->tool_name);
    strcpy(r->arguments, event->arguments_json);
  }
  if (event->part == GEMTP_PART_MALFORMED_CALL) ++r->malformed;
  return strstr(r->answer, "stop") != NULL;
}

/* Parses what the model might have said; returns how often it was stopped. */
static int parse(gemtp_model* model, const char* said, const char* stop, Reply* out) {
  int32_t ids[256], stopped = 0;
  size_t count, i;
  int stops = 0;
  gemtp_reply* reply = NULL;
  memset(out, 0, sizeof *out);
  OK(gemtp_tokenize(model, said, GEMTP_STRLEN, GEMTP_PARSE_SPECIAL, ids, 256, &count, ERR));
  REQUIRE(count <= 256);
  OK(gemtp_reply_open(model, ids, 0, &stop, stop ? 1 : 0, &reply, ERR));
  for (i = 0; i < count; ++i) {
    OK(gemtp_reply_push(reply, ids[i], on_event, out, &stopped, ERR));
    stops += stopped;
  }
  OK(gemtp_reply_push(reply, -1, on_event, out, NULL, ERR));
  OK(gemtp_reply_finish(reply, on_event, out, ERR));
  REQUIRE(gemtp_reply_push(reply, 1 << 30, on_event, out, NULL, ERR) == GEMTP_ERROR_ARGUMENT);
  REQUIRE(gemtp_reply_push(reply, 5, NULL, out, NULL, ERR) == GEMTP_ERROR_ARGUMENT);
  gemtp_reply_close(reply);
  REQUIRE(gemtp_reply_push(reply, 5, on_event, out, NULL, ERR) == GEMTP_ERROR_ARGUMENT);
  return stops;
}

static void chats_are_rendered_and_parsed(gemtp_model* model) {
  static const char kWant[] = "<|turn>system\nBe brief.<turn|>\n<|turn>user\nSay <turn|>";
  const gemtp_message messages[] = {{sizeof(gemtp_message), "system", "Be brief.", GEMTP_STRLEN},
                                    {sizeof(gemtp_message), "user", "Say <turn|>, please", 11}};
  gemtp_chat_options options;
  int32_t ids[128], want[128];
  size_t count, begun, expected;
  Reply reply;
  OK(gemtp_chat_options_init(&options, sizeof options));
  OK(gemtp_chat_tokens(model, messages, 2, NULL, ids, 128, &begun, ERR));
  options.no_generation_prompt = 1;
  OK(gemtp_chat_tokens(model, messages, 2, &options, ids, 128, &count, ERR));
  REQUIRE(count > 0 && count < begun && begun <= 128);
  /* But for the user's " <turn|>", which is text, these are the tokens of the text. */
  OK(gemtp_tokenize(model, kWant, GEMTP_STRLEN, GEMTP_ADD_BOS | GEMTP_PARSE_SPECIAL, want, 128,
                    &expected, ERR));
  REQUIRE(memcmp(ids, want, (expected - 2) * sizeof *ids) == 0);
  REQUIRE(ids[expected - 1] != want[expected - 1]);

  REQUIRE(parse(model, "<|channel>thought\nhm<channel|>Yes.", NULL, &reply) == 0);
  REQUIRE(strcmp(reply.thought, "hm") == 0 && strcmp(reply.answer, "Yes.") == 0);
  parse(model, "<|tool_call>call:f{a:1,b:<|\"|>x\"y<|\"|>}<tool_call|>", NULL, &reply);
  REQUIRE(reply.calls == 1 && strcmp(reply.name, "f") == 0);
  REQUIRE(strcmp(reply.arguments, "{\"a\":1,\"b\":\"x\\\"y\"}") == 0);
  parse(model, "<|tool_call>call:f{a:", NULL, &reply);
  REQUIRE(reply.calls == 0 && reply.malformed == 1);
  REQUIRE(parse(model, "One. Two. Three.", " Two", &reply) > 0);
  REQUIRE(strcmp(reply.answer, "One.") == 0);
  REQUIRE(parse(model, "please stop now", NULL, &reply) > 0); /* the callback */
}

/* ---- stopping ---- */

static int stop_midway(double fraction, void* user) {
  double* reached = user;
  REQUIRE(fraction >= *reached && fraction <= 1);
  *reached = fraction;
  return fraction > 0;
}

static void loading_can_be_cancelled(const char* target) {
  gemtp_model* model = NULL;
  double reached = 0;
  gemtp_model_options options;
  OK(gemtp_model_options_init(&options, sizeof options));
  options.progress = stop_midway;
  options.user = &reached;
  REQUIRE(gemtp_model_open(target, &options, &model, ERR) == GEMTP_ERROR_CANCELLED);
  REQUIRE(model == NULL && reached > 0 && reached < 1);
}

static int cancel_in_prompt(int64_t done, int64_t total, void* user) {
  if (done > 0 && done < total) OK(gemtp_session_cancel(((Output*)user)->session, ERR));
  return 0;
}

/* Calls within a callback: those on its own session are refused, all others work. */
static int call_back(const gemtp_token* token, void* user) {
  Output* out = user;
  gemtp_session *s = out->session, *other = NULL;
  size_t count;
  const int32_t id = 2;
  static Output nested;
  gemtp_stats stats;
  add(out, token);
  REQUIRE(gemtp_session_append(s, &id, 1, ERR) == GEMTP_ERROR_BUSY);
  REQUIRE(strstr(error, "another call") != NULL);
  REQUIRE(gemtp_session_tokens(s, NULL, 0, &count, ERR) == GEMTP_ERROR_BUSY);
  REQUIRE(gemtp_session_generate(s, NULL, ERR) == GEMTP_ERROR_BUSY);
  REQUIRE(gemtp_session_rewind(s, 0, ERR) == GEMTP_ERROR_BUSY);
  REQUIRE(gemtp_session_fork(s, &other, ERR) == GEMTP_ERROR_BUSY && other == NULL);
  if (out->tokens == 3) {
    gemtp_generate_options options = options_for(3, 0, &nested);
    stats.size = sizeof stats;
    other = NULL;
    OK(gemtp_session_open(*(gemtp_model**)(void*)out->text, &other, ERR));
    OK(gemtp_session_append(other, &id, 1, ERR));
    OK(gemtp_session_generate(other, &options, ERR));
    OK(gemtp_session_stats(other, &stats, ERR));
    REQUIRE(stats.tokens == kTokens);
    gemtp_session_close(other);
  }
  return 0;
}

static int close_at_five(const gemtp_token* token, void* user) {
  Output* out = user;
  add(out, token);
  if (out->tokens == 5) gemtp_session_close(out->session);
  return 0;
}

static void callbacks_may_cancel_close_and_call(gemtp_model* model) {
  static Output out;
  gemtp_generate_options options = options_for(0, 0, &out);
  int32_t many[40];
  size_t i;
  gemtp_session* session = NULL;
  OK(gemtp_session_open(model, &session, ERR));
  for (i = 0; i < 40; ++i) many[i] = 300 + (int32_t)i;
  OK(gemtp_session_append(session, many, 40, ERR));
  out.session = session;
  options.on_prompt = cancel_in_prompt; /* the test opens the model with chunks of 16 */
  REQUIRE(gemtp_session_generate(session, &options, ERR) == GEMTP_ERROR_CANCELLED);
  REQUIRE(strstr(error, "cancel") != NULL && out.tokens == 0);
  REQUIRE(stats_of(session).finish == GEMTP_FINISH_CANCELLED && tokens_of(session) == 40);
  options.on_prompt = NULL;
  OK(gemtp_session_generate(session, &options, ERR)); /* as good as before */
  REQUIRE(out.tokens == kTokens);

  options = options_for(0, 0, &out);
  out.session = session;
  memcpy(out.text, &model, sizeof model);
  out.length = sizeof model;
  options.on_token = call_back;
  OK(gemtp_session_generate(session, &options, ERR));
  REQUIRE(out.tokens == kTokens);

  options = options_for(0, 0, &out);
  out.session = session;
  options.on_token = close_at_five;
  REQUIRE(gemtp_session_generate(session, &options, ERR) == GEMTP_ERROR_CANCELLED);
  REQUIRE(out.tokens == 5);
  REQUIRE(gemtp_session_generate(session, &options, ERR) == GEMTP_ERROR_ARGUMENT);
}

typedef struct Worker {
  gemtp_model* model;
  gemtp_session* session;
  Output out;
  gemtp_status status;
  char error[256];
} Worker;

static void* run_for_long(void* user) {
  Worker* w = user;
  gemtp_generate_options options;
  gemtp_generate_options_init(&options, sizeof options);
  options.max_tokens = 100000;
  options.ignore_eos = 1;
  do { /* until the context is full, again and again */
    w->status = gemtp_session_rewind(w->session, 4, w->error, sizeof w->error);
    if (w->status == GEMTP_OK)
      w->status = gemtp_session_generate(w->session, &options, w->error, sizeof w->error);
  } while (w->status == GEMTP_OK);
  return NULL;
}

static void other_threads_stop_a_session(gemtp_model* model) {
  int close;
  for (close = 0; close < 2; ++close) {
    static Worker w;
    pthread_t thread;
    const struct timespec moment = {0, 20000000};
    memset(&w, 0, sizeof w);
    w.session = prompted(model);
    REQUIRE(pthread_create(&thread, NULL, run_for_long, &w) == 0);
    nanosleep(&moment, NULL);
    if (close)
      gemtp_session_close(w.session);
    else
      for (; w.session; nanosleep(&moment, NULL)) { /* between two generations it does nothing */
        size_t count;
        OK(gemtp_session_cancel(w.session, ERR));
        nanosleep(&moment, NULL);
        if (gemtp_session_tokens(w.session, NULL, 0, &count, ERR) == GEMTP_OK) break;
      }
    REQUIRE(pthread_join(thread, NULL) == 0);
    if (close) /* caught in a generation, or between two */
      REQUIRE(w.status == GEMTP_ERROR_CANCELLED || w.status == GEMTP_ERROR_ARGUMENT);
    else
      REQUIRE(w.status == GEMTP_ERROR_CANCELLED);
    gemtp_session_close(w.session);
  }
}

static void* run_one(void* user) {
  Worker* w = user;
  gemtp_generate_options options = options_for(GEMTP_DRAFT_AUTO, 1, &w->out);
  w->status = gemtp_session_generate(w->session, &options, w->error, sizeof w->error);
  return NULL;
}

static void threads_share_a_model(gemtp_model* model) {
  static Worker workers[4];
  static Output alone;
  pthread_t threads[4];
  gemtp_stats stats;
  int i;
  generate(model, 0, 1, &alone, &stats);
  for (i = 0; i < 4; ++i) workers[i].session = prompted(model);
  for (i = 0; i < 4; ++i) REQUIRE(pthread_create(&threads[i], NULL, run_one, &workers[i]) == 0);
  for (i = 0; i < 4; ++i) {
    REQUIRE(pthread_join(threads[i], NULL) == 0);
    REQUIRE(workers[i].status == GEMTP_OK);
    same_text(&alone, &workers[i].out);
    gemtp_session_close(workers[i].session);
  }
}

static void* run_and_close(void* user) {
  Worker* w = user;
  gemtp_generate_options options = options_for(GEMTP_DRAFT_AUTO, 1, &w->out);
  options.wait = 1;
  w->session = prompted(w->model);
  w->status = gemtp_session_generate(w->session, &options, w->error, sizeof w->error);
  gemtp_session_close(w->session);
  return NULL;
}

/* There is K/V memory for one session: others wait for it, if they may. */
static void sessions_wait_for_each_other(const char* target) {
  static Worker workers[4];
  static Output alone, refused;
  pthread_t threads[4];
  gemtp_model* model = NULL;
  gemtp_model_options options;
  gemtp_generate_options without, with;
  gemtp_memory memory = {0};
  gemtp_session *first, *second;
  gemtp_stats stats;
  int i;
  OK(gemtp_model_options_init(&options, sizeof options));
  options.context = 256;
  memory.size = sizeof memory;
  OK(gemtp_memory_estimate(target, &options, &memory, ERR));
  options.kv_budget = memory.kv;
  OK(gemtp_model_open(target, &options, &model, ERR));
  generate(model, 0, 1, &alone, &stats);
  for (i = 0; i < 4; ++i) {
    workers[i].model = model;
    REQUIRE(pthread_create(&threads[i], NULL, run_and_close, &workers[i]) == 0);
  }
  for (i = 0; i < 4; ++i) {
    REQUIRE(pthread_join(threads[i], NULL) == 0);
    REQUIRE(workers[i].status == GEMTP_OK);
    same_text(&alone, &workers[i].out);
  }
  first = prompted(model);
  second = prompted(model);
  without = options_for(0, 1, &refused);
  with = without;
  with.wait = 1;
  OK(gemtp_session_begin(first, &with, ERR)); /* K/V is taken with the first step */
  OK(gemtp_session_begin(second, &without, ERR));
  {
    size_t count;
    gemtp_finish finish;
    REQUIRE(gemtp_session_step(first, &count, &finish, ERR) == GEMTP_ERROR_MEMORY);
  }
  REQUIRE(gemtp_session_begin(first, &without, ERR) == GEMTP_ERROR_MEMORY);
  gemtp_session_close(second);
  OK(gemtp_session_begin(first, &without, ERR));
  gemtp_session_close(first);
  gemtp_model_close(model);
}

/* ---- mistakes ---- */

static void structs_of_other_versions(gemtp_model* model) {
  static Output out;
  gemtp_session* session = prompted(model);
  struct {
    gemtp_generate_options known;
    int64_t unknown;
  } newer;
  gemtp_generate_options old, whole = options_for(0, 0, &out);
  gemtp_stats stats;

  memset(&old, 0xFF, sizeof old); /* an older caller has no such fields at all */
  old.max_tokens = 3;
  old.seed = 1;
  old.size = offsetof(gemtp_generate_options, temperature);
  OK(gemtp_session_generate(session, &old, ERR));
  REQUIRE(stats_of(session).tokens <= 3);

  newer.known = whole;
  newer.known.size = sizeof newer;
  newer.unknown = 0;
  OK(gemtp_session_generate(session, &newer.known, ERR));
  newer.unknown = 1;
  REQUIRE(gemtp_session_generate(session, &newer.known, ERR) == GEMTP_ERROR_ARGUMENT);
  REQUIRE(strstr(error, "gemtp_generate_options") != NULL && strstr(error, "newer") != NULL);
  newer.unknown = 7;
  OK(gemtp_generate_options_init(&newer.known, sizeof newer));
  REQUIRE(newer.unknown == 0 && newer.known.size == sizeof newer && newer.known.top_p == 1);

  whole.size = 0;
  REQUIRE(gemtp_session_generate(session, &whole, ERR) == GEMTP_ERROR_ARGUMENT);
  whole.size = 9; /* would cut a pointer in half */
  REQUIRE(gemtp_session_generate(session, &whole, ERR) == GEMTP_ERROR_ARGUMENT);
  whole.size = (size_t)-8;
  REQUIRE(gemtp_session_generate(session, &whole, ERR) == GEMTP_ERROR_ARGUMENT);
  REQUIRE(gemtp_generate_options_init(&whole, 3) == GEMTP_ERROR_ARGUMENT);
  REQUIRE(gemtp_generate_options_init(NULL, sizeof whole) == GEMTP_ERROR_ARGUMENT);

  memset(&stats, 0xFF, sizeof stats);
  stats.size = offsetof(gemtp_stats, rounds);
  OK(gemtp_session_stats(session, &stats, ERR));
  REQUIRE(stats.size == offsetof(gemtp_stats, rounds) && stats.finish == GEMTP_FINISH_LENGTH);
  REQUIRE(stats.rounds == -1);
  stats.size = 0;
  REQUIRE(gemtp_session_stats(session, &stats, ERR) == GEMTP_ERROR_ARGUMENT);
  gemtp_session_close(session);
}

static void handles_are_checked(gemtp_model* model) {
  gemtp_session *session = prompted(model), *other = NULL;
  gemtp_model_info info;
  size_t count;
  info.size = sizeof info;
  gemtp_session_close(session);
  gemtp_session_close(session); /* twice */
  REQUIRE(gemtp_session_tokens(session, NULL, 0, &count, ERR) == GEMTP_ERROR_ARGUMENT);
  REQUIRE(strstr(error, "closed") != NULL);
  REQUIRE(gemtp_session_cancel(session, ERR) == GEMTP_ERROR_ARGUMENT);
  REQUIRE(gemtp_session_cancel(NULL, ERR) == GEMTP_ERROR_ARGUMENT);
  REQUIRE(strcmp(error, "the session is NULL") == 0);
  REQUIRE(gemtp_session_cancel((gemtp_session*)(void*)model, ERR) == GEMTP_ERROR_ARGUMENT);
  REQUIRE(gemtp_session_cancel((gemtp_session*)(void*)&info, ERR) == GEMTP_ERROR_ARGUMENT);
  REQUIRE(gemtp_session_open(NULL, &other, ERR) == GEMTP_ERROR_ARGUMENT);
  REQUIRE(gemtp_session_open(model, NULL, ERR) == GEMTP_ERROR_ARGUMENT);
  REQUIRE(gemtp_model_describe(NULL, &info, ERR) == GEMTP_ERROR_ARGUMENT);
  REQUIRE(gemtp_model_describe(model, NULL, ERR) == GEMTP_ERROR_ARGUMENT);
  REQUIRE(other == NULL);
  gemtp_session_close(NULL);
  gemtp_model_close(NULL);
  gemtp_reply_close(NULL);
}

static void a_session_outlives_its_model(const char* target) {
  gemtp_model* model = NULL;
  gemtp_session *session, *other = NULL;
  OK(gemtp_model_open(target, NULL, &model, ERR));
  session = prompted(model);
  gemtp_model_close(model);
  gemtp_model_close(model);
  OK(gemtp_session_generate(session, NULL, ERR));
  REQUIRE(gemtp_session_open(model, &other, ERR) == GEMTP_ERROR_ARGUMENT);
  REQUIRE(strstr(error, "model is not open") != NULL);
  gemtp_session_close(session);
}

static void models_that_do_not_open(const char* target) {
  gemtp_model* other = NULL;
  gemtp_model_options options;
  REQUIRE(gemtp_model_open("no/such.gguf", NULL, &other, ERR) == GEMTP_ERROR_FILE);
  REQUIRE(other == NULL && strstr(error, "no/such.gguf") != NULL);
  REQUIRE(gemtp_model_open(NULL, NULL, &other, NULL, 0) == GEMTP_ERROR_ARGUMENT);
  REQUIRE(gemtp_model_open(target, NULL, NULL, ERR) == GEMTP_ERROR_ARGUMENT);
  OK(gemtp_model_options_init(&options, sizeof options));
  options.drafter_path = target;
  REQUIRE(gemtp_model_open(target, &options, &other, ERR) == GEMTP_ERROR_MODEL);
  OK(gemtp_model_options_init(&options, sizeof options));
  options.isa = "abacus";
  REQUIRE(gemtp_model_open(target, &options, &other, ERR) == GEMTP_ERROR_ARGUMENT);
  OK(gemtp_model_options_init(&options, sizeof options));
  options.gpu_layers = "many";
  REQUIRE(gemtp_model_open(target, &options, &other, ERR) == GEMTP_ERROR_ARGUMENT);
  REQUIRE(strstr(error, "gpu_layers is 'many'") != NULL);
  options.gpu_layers = "99"; /* all */
  OK(gemtp_model_open(target, &options, &other, ERR));
  gemtp_model_close(other);
  other = NULL;
  OK(gemtp_model_options_init(&options, sizeof options));
  options.context = -1;
  REQUIRE(gemtp_model_open(target, &options, &other, ERR) == GEMTP_ERROR_ARGUMENT);
  OK(gemtp_model_options_init(&options, sizeof options));
  options.kv_budget = 1;
  REQUIRE(gemtp_model_open(target, &options, &other, ERR) == GEMTP_ERROR_ARGUMENT);
  REQUIRE(other == NULL);
}

static void mistakes_become_codes_and_sentences(gemtp_model* model) {
  gemtp_session* session = NULL;
  gemtp_generate_options options;
  gemtp_model_info info;
  const int32_t bad[] = {1 << 30}, good[] = {2};
  const char* stops[] = {NULL};
  gemtp_message message = {sizeof message, "user", "hello", GEMTP_STRLEN};
  int32_t* many;
  size_t n, count = 77;
  char tiny[4];
  gemtp_finish finish;
  OK(gemtp_session_open(model, &session, ERR));
  REQUIRE(gemtp_session_step(session, &count, &finish, ERR) == GEMTP_ERROR_ARGUMENT);
  REQUIRE(gemtp_session_append(session, bad, 1, ERR) == GEMTP_ERROR_ARGUMENT);
  REQUIRE(gemtp_session_append(session, good, (size_t)-1, ERR) == GEMTP_ERROR_ARGUMENT);
  REQUIRE(gemtp_session_append(session, NULL, 1, ERR) == GEMTP_ERROR_ARGUMENT);
  REQUIRE(gemtp_session_append_text(session, NULL, GEMTP_STRLEN, 0, ERR) == GEMTP_ERROR_ARGUMENT);
  REQUIRE(gemtp_session_append_text(session, "a", (size_t)-2, 0, ERR) == GEMTP_ERROR_ARGUMENT);
  REQUIRE(gemtp_session_append_text(session, "\xff", 1, 0, ERR) == GEMTP_ERROR_ARGUMENT);
  REQUIRE(gemtp_session_append_text(session, "a", 1, 4, ERR) == GEMTP_ERROR_ARGUMENT);
  REQUIRE(gemtp_session_rewind(session, -1, ERR) == GEMTP_ERROR_ARGUMENT);
  REQUIRE(gemtp_session_rewind(session, 1, ERR) == GEMTP_ERROR_ARGUMENT);
  REQUIRE(gemtp_tokenize(model, "a", 1, 0, NULL, 1, &count, ERR) == GEMTP_ERROR_ARGUMENT);
  REQUIRE(gemtp_tokenize(model, "a", 1, 0, NULL, 0, NULL, ERR) == GEMTP_ERROR_ARGUMENT);
  REQUIRE(gemtp_detokenize(model, bad, 1, NULL, 0, &count, ERR) == GEMTP_ERROR_ARGUMENT);
  REQUIRE(gemtp_chat_tokens(model, &message, 0, NULL, NULL, 0, &count, ERR) ==
          GEMTP_ERROR_ARGUMENT);
  REQUIRE(gemtp_chat_tokens(model, NULL, 1, NULL, NULL, 0, &count, ERR) == GEMTP_ERROR_ARGUMENT);
  message.role = NULL;
  REQUIRE(gemtp_chat_tokens(model, &message, 1, NULL, NULL, 0, &count, ERR) ==
          GEMTP_ERROR_ARGUMENT);
  message.size = 4;
  REQUIRE(gemtp_chat_tokens(model, &message, 1, NULL, NULL, 0, &count, ERR) ==
          GEMTP_ERROR_ARGUMENT);
  REQUIRE(count == 77);

  OK(gemtp_session_append(session, good, 1, ERR));
  OK(gemtp_generate_options_init(&options, sizeof options));
  options.top_p = -1;
  REQUIRE(gemtp_session_generate(session, &options, ERR) == GEMTP_ERROR_ARGUMENT);
  REQUIRE(strstr(error, "top_p") != NULL);
  OK(gemtp_generate_options_init(&options, sizeof options));
  options.max_tokens = -2;
  REQUIRE(gemtp_session_begin(session, &options, ERR) == GEMTP_ERROR_ARGUMENT);
  options.max_tokens = 1;
  options.stop = stops;
  options.stop_count = 1;
  REQUIRE(gemtp_session_begin(session, &options, ERR) == GEMTP_ERROR_ARGUMENT);
  REQUIRE(strcmp(error, "stop[0] is NULL") == 0);
  options.stop = NULL;
  REQUIRE(gemtp_session_begin(session, &options, ERR) == GEMTP_ERROR_ARGUMENT);
  options.stop_count = 0;
  options.draft = 99;
  REQUIRE(gemtp_session_begin(session, &options, ERR) == GEMTP_ERROR_ARGUMENT);

  info.size = sizeof info;
  OK(gemtp_model_describe(model, &info, ERR));
  n = (size_t)info.context + 1;
  many = malloc(n * sizeof *many);
  REQUIRE(many != NULL);
  for (count = 0; count < n; ++count) many[count] = 2;
  REQUIRE(gemtp_session_append(session, many, n, ERR) == GEMTP_ERROR_CONTEXT);
  REQUIRE(gemtp_session_assign(session, many, n, ERR) == GEMTP_ERROR_CONTEXT);
  free(many);
  REQUIRE(tokens_of(session) == 1); /* nothing of it was done */
  REQUIRE(gemtp_session_append(session, bad, 1, tiny, sizeof tiny) == GEMTP_ERROR_ARGUMENT);
  REQUIRE(strlen(tiny) == 3);
  REQUIRE(gemtp_session_append(session, bad, 1, NULL, 0) == GEMTP_ERROR_ARGUMENT);
  gemtp_session_close(session);
}

int main(int argc, char** argv) {
  gemtp_model* model = NULL;
  gemtp_model_options options;
  if (argc != 4) {
    fprintf(stderr, "usage: %s TARGET.gguf DRAFTER.gguf SCRATCH_FILE\n", argv[0]);
    return 2;
  }
  REQUIRE(gemtp_abi_version() == GEMTP_ABI_VERSION && gemtp_version()[0] != 0);
  OK(gemtp_model_options_init(&options, sizeof options));
  options.drafter_path = argv[2];
  options.context = 512;
  options.prefill_chunk = 16;
  OK(gemtp_model_open(argv[1], &options, &model, ERR));
  text_round_trips(model);
  a_model_describes_itself(model, argv[1], argv[2]);
  words_for_none(model);
  same_bytes_with_and_without_drafter(model);
  logits_are_seen_and_changed(model);
  constraints_are_kept(model);
  sessions_go_on(model, argv[3]);
  chats_are_rendered_and_parsed(model);
  loading_can_be_cancelled(argv[1]);
  callbacks_may_cancel_close_and_call(model);
  other_threads_stop_a_session(model);
  threads_share_a_model(model);
  sessions_wait_for_each_other(argv[1]);
  structs_of_other_versions(model);
  handles_are_checked(model);
  a_session_outlives_its_model(argv[1]);
  models_that_do_not_open(argv[1]);
  mistakes_become_codes_and_sentences(model);
  gemtp_model_close(model);
  puts("C ABI: ok");
  return 0;
}
