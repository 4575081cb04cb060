/* gemtp: Gemma 4 with its multi-token-prediction drafter, for C and everything that can call C.
 *
 * Two objects. A gemtp_model is an opened model: weights, tokenizer, threads; it never changes, and
 * any number of threads may use it. A gemtp_session is one text that goes on: tokens, and what the
 * model has computed of them. Put tokens behind it, generate, cut it back, fork it, keep it in a
 * file; open as many of one model as its memory has room for. Sessions that generate at the same
 * time, each on a thread of its own, share passes over the weights.
 *
 *   static int print(const gemtp_token* token, void* user) {
 *     (void)user;
 *     fwrite(token->text, 1, token->length, stdout);
 *     return fflush(stdout);                      // 0: go on
 *   }
 *
 *   char error[256];
 *   gemtp_model* model;
 *   gemtp_model_options options;
 *   gemtp_model_options_init(&options, sizeof options);
 *   options.drafter_path = "drafter.gguf";
 *   if (gemtp_model_open("target.gguf", &options, &model, error, sizeof error)) return fail(error);
 *
 *   gemtp_session* session;
 *   gemtp_generate_options generate;
 *   gemtp_generate_options_init(&generate, sizeof generate);
 *   generate.max_tokens = 64;
 *   generate.on_token = print;
 *   if (gemtp_session_open(model, &session, error, sizeof error) ||
 *       gemtp_session_append_text(session, "def fibonacci(n):", GEMTP_STRLEN, GEMTP_ADD_BOS, error,
 *                                 sizeof error) ||
 *       gemtp_session_generate(session, &generate, error, sizeof error))
 *     return fail(error);
 *   gemtp_session_close(session);
 *   gemtp_model_close(model);
 *
 * The text is a function of weights, tokens, options and seed, and of nothing else: the drafter,
 * its depth, the number of threads, other sessions, how the tokens came into the session and the
 * instruction set change the speed only.
 *
 * Rules
 *  - Errors. What can fail returns a gemtp_status and, when it is not GEMTP_OK, writes one sentence
 *    (what is wrong, where, what to do) to error[0 .. error_size), cut to fit and 0-terminated.
 *    error may be NULL. Outputs are untouched on failure. Nothing here prints, logs, aborts or
 *    exits.
 *  - Handles. NULL, a handle that was closed and one of the other kind are GEMTP_ERROR_ARGUMENT
 *    wherever a status is returned, always: a handle is a number, never used twice, which no call
 *    follows as an address. Closing is void, and twice is as good as once.
 *  - Threads. Everything that takes a gemtp_model, and gemtp_session_cancel(), may be called from
 *    any thread at any time. A session takes one call at a time; another one meanwhile, also from
 *    one of its own callbacks, is GEMTP_ERROR_BUSY and changes nothing.
 *  - Closing. A session keeps alive what it needs of a model that is closed. gemtp_session_close()
 *    may come from any thread and from callbacks: what the session is doing ends as if cancelled.
 *  - fork(). A child uses what it has, also sessions. Where another thread was in a call on a model
 *    or its sessions at that moment, the child's calls give GEMTP_ERROR_ARGUMENT, or _BUSY for the
 *    session of that call: it opens the model again.
 *  - Callbacks come on the thread of the call, return 0 to go on and anything else to stop, and may
 *    call everything but what the rules above exclude. They must not throw or jump out.
 *  - Structs begin with their size, so that they can grow. The *_init() functions set it and fill
 *    in the defaults; structs that the library fills in need `size` alone. A caller built against
 *    an older header passes less than the library knows, and gets the defaults for the rest; one
 *    that passes more gets GEMTP_ERROR_ARGUMENT unless all that the library does not know is 0.
 *    In arrays of structs the first one's size holds for all. In a struct that a callback is given,
 *    fields past its size are not there.
 *  - Text is UTF-8 with a length and need not end in 0; as a length, GEMTP_STRLEN means that it
 *    does. Paths are UTF-8 and end in 0. What is passed in is copied.
 *  - Buffers that are filled: at most `capacity` items are written and always the number there are,
 *    so that a call with capacity 0 tells how many to make room for.
 */
#ifndef GEMTP_H_
#define GEMTP_H_

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) && defined(GEMTP_BUILDING)
#define GEMTP_API __declspec(dllexport)
#elif defined(_WIN32) && defined(GEMTP_SHARED)
#define GEMTP_API __declspec(dllimport)
#elif defined(__GNUC__)
#define GEMTP_API __attribute__((visibility("default")))
#else
#define GEMTP_API
#endif

/* The number in the library's name (libgemtp.so.0). Within one, functions, fields and values are
 * only ever added, so that a program runs with any library at least as new as its header. */
#define GEMTP_ABI_VERSION 0

#ifdef __cplusplus
extern "C" {
#endif

typedef struct gemtp_model gemtp_model;
typedef struct gemtp_session gemtp_session;
typedef struct gemtp_reply gemtp_reply;

typedef enum gemtp_status {
  GEMTP_OK = 0,
  GEMTP_ERROR_FILE = 1,      /* a file that cannot be read or written, or is damaged */
  GEMTP_ERROR_MODEL = 2,     /* files that do not fit together or that this build cannot run */
  GEMTP_ERROR_ARGUMENT = 3,  /* a parameter outside its domain */
  GEMTP_ERROR_CONTEXT = 4,   /* more tokens than the context holds */
  GEMTP_ERROR_MEMORY = 5,    /* not enough memory */
  GEMTP_ERROR_INTERNAL = 6,  /* a bug of gemtp's */
  GEMTP_ERROR_CANCELLED = 7, /* by gemtp_session_cancel() or the progress callback */
  GEMTP_ERROR_BUSY = 8       /* the session is in another call */
} gemtp_status;

#define GEMTP_STRLEN ((size_t)-1)

/* Of the library that runs: "0.2.0", and its GEMTP_ABI_VERSION. */
GEMTP_API const char* gemtp_version(void);
GEMTP_API int32_t gemtp_abi_version(void);

/* ---- model ---------------------------------------------------------------------------------- */

typedef struct gemtp_model_options {
  size_t size;
  const char* drafter_path; /* NULL: no drafter; tokens are still looked up in the text */
  int64_t context;          /* tokens a session can hold; at most the model's own length */
  int64_t prefill_chunk;    /* rows of one prefill pass: memory against speed */
  int64_t kv_budget;        /* bytes that all sessions' K/V may take; 0: a share of what is free */
  int32_t threads;          /* 0: as many as this machine profits from */
  int32_t kv_f32;           /* 0: K/V in f16 (half the memory), 1: in f32 */
  int32_t no_mmap;          /* 1: embedding tables in memory; the files may change then */
  const char* isa;          /* NULL: environment variable GEMTP_ISA, else the best that runs */
  /* While it opens: how much is done, from 0 to 1. Stopped, gemtp_model_open() returns
   * GEMTP_ERROR_CANCELLED and nothing is left of it. */
  int (*progress)(double fraction, void* user);
  void* user;
} gemtp_model_options;

GEMTP_API gemtp_status gemtp_model_options_init(gemtp_model_options* options, size_t size);

/* options may be NULL for the defaults. */
GEMTP_API gemtp_status gemtp_model_open(const char* target_path, const gemtp_model_options* options,
                                        gemtp_model** model, char* error, size_t error_size);
GEMTP_API void gemtp_model_close(gemtp_model* model);

typedef struct gemtp_model_info {
  size_t size;
  int64_t context;    /* tokens a session can hold */
  int64_t kv_budget;  /* bytes */
  int32_t vocab_size; /* ids are below it */
  int32_t threads;
  int32_t has_drafter;
  int32_t has_tokenizer;     /* 0: ids only */
  int32_t has_chat;          /* its vocabulary has the tokens of Gemma's chat format */
  int32_t has_chat_template; /* the file brings a template, as one made for chats does */
  char backend[32];          /* e.g. "cpu/avx2" */
} gemtp_model_info;

GEMTP_API gemtp_status gemtp_model_describe(const gemtp_model* model, gemtp_model_info* info,
                                            char* error, size_t error_size);

typedef struct gemtp_memory { /* bytes */
  size_t size;
  int64_t weights;   /* packed, of target and drafter */
  int64_t tables;    /* looked up by row, in the file's pages */
  int64_t kv;        /* of one session */
  int64_t scratch;   /* of the longest pass */
  int64_t needed;    /* of these, what must be there at once, for one session */
  int64_t available; /* what this process may use now; 0: unknown */
  int64_t context;   /* tokens that `kv` is for */
} gemtp_memory;

/* What a model would take, from its files' headers alone. Opening refuses one that needs more than
 * is available. */
GEMTP_API gemtp_status gemtp_memory_estimate(const char* target_path,
                                             const gemtp_model_options* options,
                                             gemtp_memory* memory, char* error, size_t error_size);

/* What closed sessions leave in K/V memory serves later ones that begin alike. This forgets it. */
GEMTP_API gemtp_status gemtp_model_clear_cache(gemtp_model* model, char* error, size_t error_size);

/* ---- text ----------------------------------------------------------------------------------- */

enum {
  GEMTP_ADD_BOS = 1,      /* put the beginning-of-sequence token in front, unless it is there */
  GEMTP_PARSE_SPECIAL = 2 /* text that spells a control token becomes it; never for user text */
};

GEMTP_API gemtp_status gemtp_tokenize(const gemtp_model* model, const char* text, size_t length,
                                      int32_t flags, int32_t* ids, size_t capacity, size_t* count,
                                      char* error, size_t error_size);

/* Text of ids, without a 0 at its end. */
GEMTP_API gemtp_status gemtp_detokenize(const gemtp_model* model, const int32_t* ids, size_t count,
                                        char* text, size_t capacity, size_t* length, char* error,
                                        size_t error_size);

typedef struct gemtp_message {
  size_t size;
  const char* role; /* "system", "user" or "assistant" */
  const char* text;
  size_t length;
} gemtp_message;

typedef struct gemtp_chat_options {
  size_t size;
  int32_t thinking;             /* 1: the model may think before it answers */
  int32_t no_generation_prompt; /* 1: do not begin the model's turn */
} gemtp_chat_options;

GEMTP_API gemtp_status gemtp_chat_options_init(gemtp_chat_options* options, size_t size);

/* Ids of a conversation in Gemma 4's chat format, built in: a template that the model file brings
 * is not looked at. Whatever control tokens a message spells stay text. Thoughts of earlier
 * answers do not belong in messages. options may be NULL. */
GEMTP_API gemtp_status gemtp_chat_tokens(const gemtp_model* model, const gemtp_message* messages,
                                         size_t message_count, const gemtp_chat_options* options,
                                         int32_t* ids, size_t capacity, size_t* count, char* error,
                                         size_t error_size);

/* ---- session -------------------------------------------------------------------------------- */

/* An empty one. Its K/V is taken from the model's budget when it first generates;
 * GEMTP_ERROR_MEMORY then says that sessions in use leave no room; gemtp_generate_options.wait. */
GEMTP_API gemtp_status gemtp_session_open(gemtp_model* model, gemtp_session** session, char* error,
                                          size_t error_size);
GEMTP_API void gemtp_session_close(gemtp_session* session);

/* Puts tokens, or a text's, behind all others. Ends a generation that gemtp_session_begin() began.
 */
GEMTP_API gemtp_status gemtp_session_append(gemtp_session* session, const int32_t* ids,
                                            size_t count, char* error, size_t error_size);
GEMTP_API gemtp_status gemtp_session_append_text(gemtp_session* session, const char* text,
                                                 size_t length, int32_t flags, char* error,
                                                 size_t error_size);

/* Makes ids all of its tokens. What they have in common with the tokens before is not computed
 * again: for a conversation, pass gemtp_chat_tokens() of all of it at every turn. */
GEMTP_API gemtp_status gemtp_session_assign(gemtp_session* session, const int32_t* ids,
                                            size_t count, char* error, size_t error_size);

/* All tokens, put there or generated. */
GEMTP_API gemtp_status gemtp_session_tokens(gemtp_session* session, int32_t* ids, size_t capacity,
                                            size_t* count, char* error, size_t error_size);

/* Keeps the first `length` tokens. */
GEMTP_API gemtp_status gemtp_session_rewind(gemtp_session* session, int64_t length, char* error,
                                            size_t error_size);

/* A second one with the same past, K/V included; also between two steps, of which the fork has
 * what was given. */
GEMTP_API gemtp_status gemtp_session_fork(gemtp_session* session, gemtp_session** fork, char* error,
                                          size_t error_size);

/* Tokens and K/V to a file and back. A file is for the same target and kv_f32; another model's is
 * GEMTP_ERROR_MODEL, a damaged or truncated one GEMTP_ERROR_FILE. A file appears whole,
 * over an earlier one, or not at all; it is its owner's alone to read, for it holds the text. A
 * link is followed; a folder, pipe or device is GEMTP_ERROR_FILE. */
GEMTP_API gemtp_status gemtp_session_save(gemtp_session* session, const char* path, char* error,
                                          size_t error_size);
GEMTP_API gemtp_status gemtp_session_restore(gemtp_model* model, const char* path,
                                             gemtp_session** session, char* error,
                                             size_t error_size);

/* ---- generate ------------------------------------------------------------------------------- */

typedef enum gemtp_source {
  GEMTP_SOURCE_TARGET = 0, /* not drafted */
  GEMTP_SOURCE_DRAFTER = 1,
  GEMTP_SOURCE_LOOKUP = 2, /* found earlier in the text */
  GEMTP_SOURCE_GRAMMAR = 3 /* the only one that a constraint left */
} gemtp_source;

typedef struct gemtp_logprob { /* does not grow */
  double logprob;
  int32_t id;
} gemtp_logprob;

typedef struct gemtp_token {
  size_t size;
  const char* text; /* what became certain with it: whole characters, possibly none. Not text that
                       may yet turn out to be a stop string. */
  size_t length;
  int32_t id;     /* -1: no token, but text that was held back until the end */
  int32_t source; /* gemtp_source: whose guess it was */
  int32_t depth;  /* which draft of its round, from 1; 0: not drafted */
  /* Where they were asked for, else NaN and none: the natural logarithm of its probability as the
   * model has it, at temperature 1 before penalties, biases and filters; and the likeliest tokens
   * in its place, likeliest first. */
  double logprob;
  const gemtp_logprob* top;
  size_t top_count;
} gemtp_token;

typedef struct gemtp_logit_bias {
  int32_t id;
  float bias; /* is added; -INFINITY bans the token */
} gemtp_logit_bias;

/* What may be generated. It is the state of one text, which goes forward and, with drafts that were
 * wrong, back; `user` belongs to one generation, until the session begins another or is closed.
 * Comes on threads as on_logits does, one call at a time. Functions that return a status give 0,
 * or end the generation as cancelled. The tokens are the same with drafts and without. */
typedef struct gemtp_constraint {
  size_t size;
  /* Goes on by tokens that may come next, or takes back the latest n. */
  int (*push)(const int32_t* ids, size_t n, void* user);
  int (*pop)(size_t n, void* user);
  /* The tokens that may come next: bit id % 32 of word id / 32. All n words are 0 before. End
   * tokens are among them where the text may end. */
  int (*mask)(uint32_t* words, size_t n, void* user);
  /* May be NULL. Tokens that are the only ones to come, at most `capacity`; their number is
   * returned. They are verified as drafts are, but cost nothing to make. */
  size_t (*forced)(int32_t* ids, size_t capacity, void* user);
  /* May be NULL. 1: nothing but an end may come, and the generation ends with GEMTP_FINISH_STOP. */
  int (*complete)(void* user);
  void* user;
} gemtp_constraint;

enum { GEMTP_DRAFT_AUTO = -1 };

#define GEMTP_RANDOM_SEED UINT64_MAX

typedef struct gemtp_generate_options {
  size_t size;
  int64_t max_tokens;       /* -1: until the context is full */
  uint64_t seed;            /* GEMTP_RANDOM_SEED: a new one, which gemtp_stats tells */
  float temperature;        /* 0: greedy */
  int32_t top_k;            /* 0 or -1: off */
  float top_p;              /* 1: off; 0: the likeliest token alone */
  float min_p;              /* 0: off */
  float repetition_penalty; /* 1: off */
  float presence_penalty;
  float frequency_penalty;
  int32_t penalty_last_n; /* tokens the penalties look back on; -1: all */
  int32_t draft;          /* tokens to draft a round: GEMTP_DRAFT_AUTO (what pays), 0 (off) to 15 */
  int32_t ignore_eos;     /* 1: go on after an end token */
  int32_t logprobs;       /* 0: of each token, 1 to 20: and of so many of the likeliest; -1: none */
  const char* const* stop; /* 0-terminated strings that end the text and are not part of it; empty
                              ones count as none */
  size_t stop_count;
  const gemtp_logit_bias* logit_bias;
  size_t logit_bias_count;
  /* Each may be NULL; on_token and on_prompt are gemtp_session_generate()'s alone. The token, and
   * its text, are gone when on_token returns; if it stops, the session ends with that token.
   * on_prompt is called as the prompt is worked on. */
  int (*on_token)(const gemtp_token* token, void* user);
  int (*on_prompt)(int64_t done, int64_t total, void* user);
  /* Changes the logits that the next token is chosen from, before everything else; ids are all
   * tokens so far. For the text to be a function of the options it has to be one of its arguments.
   * Comes on the thread of whichever session's call runs the pass that is shared, and holds it up:
   * it may call nothing that generates. Stopped, the call returns GEMTP_ERROR_CANCELLED. */
  int (*on_logits)(const int32_t* ids, size_t count, float* logits, size_t vocab_size, void* user);
  void* user;
  const gemtp_constraint* constraint; /* NULL: none */
  /* 1: where sessions leave no K/V memory for this one, wait, first come, first served, until one
   * that may wait itself is closed; only such ones are waited for, and each of them has to be,
   * soon. GEMTP_ERROR_MEMORY comes when none is left, gemtp_session_cancel() ends the wait. 0:
   * GEMTP_ERROR_MEMORY at once. */
  int32_t wait;
} gemtp_generate_options;

GEMTP_API gemtp_status gemtp_generate_options_init(gemtp_generate_options* options, size_t size);

/* Puts the sampling that the model's file recommends for chats (keys general.sampling.*) into
 * options; what the file says nothing of stays. Without this, generating is greedy. */
GEMTP_API gemtp_status gemtp_model_sampling(const gemtp_model* model,
                                            gemtp_generate_options* options, char* error,
                                            size_t error_size);

/* Generates behind all tokens of the session, of which there must be one at least. Tokens become
 * part of the session, but for an end token. GEMTP_OK also when a callback stopped it. options may
 * be NULL. */
GEMTP_API gemtp_status gemtp_session_generate(gemtp_session* session,
                                              const gemtp_generate_options* options, char* error,
                                              size_t error_size);

/* Ends the generation that is under way: within milliseconds, also in the middle of a prompt. The
 * call that is running, or the next step, returns GEMTP_ERROR_CANCELLED; tokens that were given
 * stay, and the session is as good as before. Where nothing is under way, nothing happens. */
GEMTP_API gemtp_status gemtp_session_cancel(gemtp_session* session, char* error, size_t error_size);

typedef enum gemtp_finish {
  GEMTP_UNFINISHED = 0,      /* under way, or never begun */
  GEMTP_FINISH_STOP = 1,     /* an end token or a stop string */
  GEMTP_FINISH_LENGTH = 2,   /* max_tokens */
  GEMTP_FINISH_CONTEXT = 3,  /* the context is full */
  GEMTP_FINISH_CANCELLED = 4 /* gemtp_session_cancel(), or a callback */
} gemtp_finish;

/* The same a piece at a time, without those two callbacks: begin, step until *finish says so. A
 * step is one chunk of the prompt or one draft-verify round; *count is the number of its tokens,
 * which gemtp_session_emitted() tells one by one. Text in them is valid until the session's next
 * step or begin, or its close. */
GEMTP_API gemtp_status gemtp_session_begin(gemtp_session* session,
                                           const gemtp_generate_options* options, char* error,
                                           size_t error_size);
GEMTP_API gemtp_status gemtp_session_step(gemtp_session* session, size_t* count,
                                          gemtp_finish* finish, char* error, size_t error_size);
GEMTP_API gemtp_status gemtp_session_emitted(gemtp_session* session, size_t index,
                                             gemtp_token* token, char* error, size_t error_size);

typedef struct gemtp_stats { /* of the latest generation */
  size_t size;
  int32_t finish;                            /* gemtp_finish */
  int64_t rounds;                            /* verify passes */
  int64_t drafted;                           /* drafts verified */
  int64_t accepted;                          /* drafts that became tokens */
  int64_t lookup_drafted, lookup_accepted;   /* of those, the ones looked up in the text */
  int64_t grammar_drafted, grammar_accepted; /* and the ones that a constraint forced */
  int64_t prompt_tokens;
  int64_t cached_tokens; /* of the prompt, whose K/V was there already */
  int64_t prompt_done;   /* of the prompt, with those */
  int64_t tokens;        /* generated */
  double prompt_seconds; /* until the first token */
  double decode_seconds; /* after it */
  double tokens_per_second;
  int64_t depth_histogram[16]; /* [k]: rounds that drafted k tokens */
  uint64_t seed;               /* with it, the same tokens and options give the same text */
} gemtp_stats;

GEMTP_API gemtp_status gemtp_session_stats(gemtp_session* session, gemtp_stats* stats, char* error,
                                           size_t error_size);

/* ---- replies -------------------------------------------------------------------------------- */

/* What a model generates in a chat, taken apart as it comes. */
typedef enum gemtp_part {
  GEMTP_PART_CONTENT = 0, /* of the answer */
  GEMTP_PART_THINKING = 1,
  GEMTP_PART_TOOL_CALL = 2,     /* a whole call, and its text */
  GEMTP_PART_MALFORMED_CALL = 3 /* the text of a call that cannot be read */
} gemtp_part;

typedef struct gemtp_reply_event {
  size_t size;
  int32_t part; /* gemtp_part */
  const char* text;
  size_t length;
  const char* tool_name;      /* of GEMTP_PART_TOOL_CALL, else NULL; 0-terminated */
  const char* arguments_json; /* likewise: an object */
} gemtp_reply_event;

typedef int (*gemtp_reply_callback)(const gemtp_reply_event* event, void* user);

/* For the reply to ids[0 .. count), which may have opened a thought. Stop strings end the answer;
 * in thoughts and calls they do not, so leave them out of gemtp_generate_options. */
GEMTP_API gemtp_status gemtp_reply_open(const gemtp_model* model, const int32_t* ids, size_t count,
                                        const char* const* stop, size_t stop_count,
                                        gemtp_reply** reply, char* error, size_t error_size);
/* One token more; a negative id is none. Tells in events what became certain with it. *stopped,
 * unless stopped is NULL, becomes 1 when a stop string has ended the answer or the callback stops,
 * else 0. */
GEMTP_API gemtp_status gemtp_reply_push(gemtp_reply* reply, int32_t id,
                                        gemtp_reply_callback on_event, void* user, int32_t* stopped,
                                        char* error, size_t error_size);
/* The rest: an unfinished call is a malformed one. */
GEMTP_API gemtp_status gemtp_reply_finish(gemtp_reply* reply, gemtp_reply_callback on_event,
                                          void* user, char* error, size_t error_size);
GEMTP_API void gemtp_reply_close(gemtp_reply* reply);

#ifdef __cplusplus
}
#endif

#endif /* GEMTP_H_ */
