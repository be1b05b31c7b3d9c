/* A module for Valkey and Redis (7 or later): the store's functions that decisions and jobs call all the time, in C.
 *
 *     CORDON.LAYOUT <library> <layouts>      from now on calls of this library's functions are answered here
 *     CORDON.FCALL <function> <number of keys> <keys> <arguments>
 *
 * Clients go on calling FCALL: a filter turns it into CORDON.FCALL where the function is known here; all other
 * calls go to the library in Lua, as they do where there is no module. Keys, arguments and replies are the library's
 * (features/library.py), and what is written to the append-only file and to replicas is the values written: neither
 * needs the module. A call computes everything before it writes anything.
 *
 * The server's interface: https://valkey.io/topics/modules-api-ref/ */

#include "state.h"

#include <stdlib.h>
#include <string.h>

typedef struct Context Context;
typedef struct String String;
typedef struct Key Key;
typedef struct Filtered Filtered;

enum { OK = 0, FAILED = 1, API_VERSION = 1, VERSION = 1 };
#define REVISION "_r3" /* of the arguments and replies that are understood here: features/library.py */
enum { READING = 1, WRITING = 2 };
enum { NO_KEY = 0, STRING_KEY = 1 };

#define SERVER(RETURNS, NAME, ...) static RETURNS (*NAME)(__VA_ARGS__)
SERVER(void, SetModuleAttribs, Context *, const char *, int, int);
SERVER(int, CreateCommand, Context *, const char *, int (*)(Context *, String **, int), const char *, int, int, int);
SERVER(void *, RegisterCommandFilter, Context *, void (*)(Filtered *), int);
SERVER(int, CommandFilterArgsCount, Filtered *);
SERVER(String *, CommandFilterArgGet, Filtered *, int);
SERVER(int, CommandFilterArgReplace, Filtered *, int, String *);
SERVER(int, IsKeysPositionRequest, Context *);
SERVER(void, KeyAtPos, Context *, int);
SERVER(int, WrongArity, Context *);
SERVER(const char *, StringPtrLen, const String *, size_t *);
SERVER(int, StringToLongLong, const String *, long long *);
SERVER(String *, CreateString, Context *, const char *, size_t);
SERVER(void, FreeString, Context *, String *);
SERVER(void, RetainString, Context *, String *);
SERVER(void *, OpenKey, Context *, String *, int);
SERVER(void, CloseKey, Key *);
SERVER(int, KeyType, Key *);
SERVER(char *, StringDMA, Key *, size_t *, int);
SERVER(int, StringSet, Key *, String *);
SERVER(int, SetAbsExpire, Key *, long long);
SERVER(long long, Milliseconds, void);
SERVER(int, Replicate, Context *, const char *, const char *, ...);
SERVER(int, ReplyWithArray, Context *, long);
SERVER(int, ReplyWithLongLong, Context *, long long);
SERVER(int, ReplyWithStringBuffer, Context *, const char *, size_t);
SERVER(int, ReplyWithSimpleString, Context *, const char *);
SERVER(int, ReplyWithNull, Context *);
SERVER(int, ReplyWithError, Context *, const char *);
#undef SERVER

static int connect_to_server(Context *context)
{
    int (*get)(const char *, void *) = *(int (**)(const char *, void *))context;
    int missing = 0;
#define SERVER(NAME) missing |= get("RedisModule_" #NAME, &NAME) != OK
    SERVER(SetModuleAttribs);
    SERVER(CreateCommand);
    SERVER(RegisterCommandFilter);
    SERVER(CommandFilterArgsCount);
    SERVER(CommandFilterArgGet);
    SERVER(CommandFilterArgReplace);
    SERVER(IsKeysPositionRequest);
    SERVER(KeyAtPos);
    SERVER(WrongArity);
    SERVER(StringPtrLen);
    SERVER(StringToLongLong);
    SERVER(CreateString);
    SERVER(FreeString);
    SERVER(RetainString);
    SERVER(OpenKey);
    SERVER(CloseKey);
    SERVER(KeyType);
    SERVER(StringDMA);
    SERVER(StringSet);
    SERVER(SetAbsExpire);
    SERVER(Milliseconds);
    SERVER(Replicate);
    SERVER(ReplyWithArray);
    SERVER(ReplyWithLongLong);
    SERVER(ReplyWithStringBuffer);
    SERVER(ReplyWithSimpleString);
    SERVER(ReplyWithNull);
    SERVER(ReplyWithError);
#undef SERVER
    return !missing;
}

/* ---- libraries ----------------------------------------------------------------------------------------- */

typedef struct {
    char *name;
    size_t length;
    layout_t *layouts;
    unsigned entities;
} library_t;

enum { LIBRARIES_MAX = 64, TARGETS_MAX = 255 };
enum { NEW = 1, RECOVERED, REPLAY, CONFLICT, PENDING, EXPIRED };
enum { ANSWERED = 2, CONTENT = 16, OWNER = 16, ORIGIN = 40, CLAIM = 1 + ORIGIN };

static library_t libraries[LIBRARIES_MAX];
static unsigned library_count;
static String *own_call;
static state_t working;

typedef struct {
    Context *context;
    const library_t *library;
    unsigned entity; /* of a merge, from 1 */
    String **keys, **arguments;
    long long key_count;
    int argument_count;
} call_t;

typedef int function_t(const call_t *);

static function_t arrive, observe_one, complete, merge_one;

static const struct {
    const char *name;
    function_t *function;
} FUNCTIONS[] = {
    {"_arrive", arrive},
    {"_claim", arrive},
    {"_observe", observe_one},
    {"_complete", complete},
};

/* The function of this name, with its library and entity; NULL if it is not known here. */
static function_t *find(const String *called, const library_t **library, unsigned *entity)
{
    size_t length;
    const char *name = StringPtrLen(called, &length);
    for (unsigned i = 0; i < library_count; i++) {
        const library_t *known = &libraries[i];
        if (length <= known->length || memcmp(name, known->name, known->length) != 0)
            continue;
        const char *rest = name + known->length;
        size_t left = length - known->length;
        *library = known;
        for (size_t f = 0; f < sizeof FUNCTIONS / sizeof *FUNCTIONS; f++)
            if (strlen(FUNCTIONS[f].name) == left && memcmp(rest, FUNCTIONS[f].name, left) == 0)
                return FUNCTIONS[f].function;
        if (left < 8 || left > 10 || memcmp(rest, "_merge_", 7) != 0)
            continue;
        *entity = 0;
        size_t d = 7;
        for (; d < left && rest[d] >= '0' && rest[d] <= '9'; d++)
            *entity = 10 * *entity + (unsigned)(rest[d] - '0');
        if (d == left && *entity >= 1 && *entity <= known->entities)
            return merge_one;
    }
    return NULL;
}

/* ---- values -------------------------------------------------------------------------------------------- */

static const uint8_t *bytes_of(const String *string, size_t *length)
{
    return (const uint8_t *)StringPtrLen(string, length);
}

static uint64_t number_at(const uint8_t *at, size_t size)
{
    uint64_t value = 0;
    memcpy(&value, at, size);
    return value;
}

typedef struct {
    Key *key;
    const uint8_t *bytes; /* NULL if there is none */
    size_t length;
} value_t;

/* Returns 0, and has replied, where the key holds something else than a string. */
static int look_up(Context *context, String *name, int mode, value_t *value)
{
    value->key = OpenKey(context, name, mode);
    value->bytes = NULL;
    value->length = 0;
    if (value->key == NULL || KeyType(value->key) == NO_KEY)
        return 1;
    if (KeyType(value->key) != STRING_KEY) {
        ReplyWithError(context, "WRONGTYPE Operation against a key holding the wrong kind of value");
        return 0;
    }
    value->bytes = (const uint8_t *)StringDMA(value->key, &value->length, READING);
    return 1;
}

static int reply_value(Context *context, const value_t *value)
{
    if (value->bytes == NULL)
        return ReplyWithNull(context);
    return ReplyWithStringBuffer(context, (const char *)value->bytes, value->length);
}

/* Sets a value that expires, or (-1) does not. */
static void set(const call_t *call, Key *key, String *value, long long expires_ms)
{
    StringSet(key, value);
    if (expires_ms < 0) {
        Replicate(call->context, "SET", "ss", call->keys[0], value);
        return;
    }
    SetAbsExpire(key, expires_ms);
    Replicate(call->context, "SET", "sscl", call->keys[0], value, "PXAT", expires_ms);
}

/* Sets a claim that begins with these bytes. */
static void set_claim(const call_t *call, Key *key, const uint8_t head[CLAIM], const uint8_t *rest, size_t length,
                      long long expires_ms)
{
    uint8_t *bytes = malloc(CLAIM + length);
    if (bytes == NULL)
        abort(); /* as the server does when there is no memory */
    memcpy(bytes, head, CLAIM);
    memcpy(bytes + CLAIM, rest, length);
    String *value = CreateString(NULL, (const char *)bytes, CLAIM + length);
    free(bytes);
    set(call, key, value, expires_ms);
    FreeString(NULL, value);
}

static int misused(const call_t *call, const char *text) { return ReplyWithError(call->context, text); }

/* ---- the functions of features/library.lua ------------------------------------------------------------- */

enum { ARRIVAL = 26, ALONE = 10 };

typedef struct {
    value_t before;
    String *after; /* NULL if nothing changed */
    long long number;
    long long same; /* the target before that has the same key, or this one */
} target_t;

static int is_same(const String *a, const String *b)
{
    size_t a_length, b_length;
    const char *a_bytes = StringPtrLen(a, &a_length), *b_bytes = StringPtrLen(b, &b_length);
    return a_length == b_length && memcmp(a_bytes, b_bytes, a_length) == 0;
}

/* What an arrival with this claim may do: its status; RECOVERED and NEW go on. */
static int judged(const value_t *held, const uint8_t *claim, uint64_t now_ms, uint64_t takeover_ms)
{
    if (held->bytes == NULL)
        return NEW;
    if (memcmp(held->bytes + 1, claim + 1, CONTENT) != 0)
        return CONFLICT;
    if (held->bytes[0] == ANSWERED)
        return REPLAY;
    uint64_t claimed_ms = number_at(held->bytes + 1 + CONTENT + OWNER, 8);
    return now_ms < claimed_ms + takeover_ms ? PENDING : RECOVERED;
}

static int reply_status(Context *context, int status, const value_t *held)
{
    ReplyWithArray(context, status == REPLAY ? 2 : 1);
    ReplyWithLongLong(context, status);
    if (status == REPLAY)
        ReplyWithStringBuffer(context, (const char *)held->bytes + CLAIM, held->length - CLAIM);
    return OK;
}

/* Reads and observes the targets; returns 0, and has replied, where that is not possible. */
static int observe_all(const call_t *call, const uint8_t *at, const uint8_t *end, int observes, unsigned count,
                       target_t *targets)
{
    for (unsigned i = 0; i < count; i++) {
        target_t *target = &targets[i];
        unsigned entity = at < end ? *at : 0;
        target->same = i;
        if (entity < 1 || entity > call->library->entities)
            return misused(call, "ERR no entity of this catalogue"), 0;
        const layout_t *layout = &call->library->layouts[entity - 1];
        if ((size_t)(end - at) < 1 + layout->target)
            return misused(call, "ERR a target is cut off"), 0;
        for (unsigned before = 0; before < i && target->same == i; before++)
            if (is_same(call->keys[1 + before], call->keys[1 + i]))
                target->same = targets[before].same;
        if (target->same != i) {
            target->before = targets[target->same].before;
            for (unsigned before = 0; before < i; before++)
                if (targets[before].same == target->same && targets[before].after != NULL)
                    target->before.bytes = bytes_of(targets[before].after, &target->before.length);
            target->before.key = NULL;
        } else if (!look_up(call->context, call->keys[1 + i], observes ? READING | WRITING : READING,
                            &target->before)) {
            return 0;
        }
        if (observes) {
            cordon_open(&working, layout, target->before.bytes, target->before.length);
            int counted = cordon_observe(&working, at + 1);
            if (working.fault)
                return misused(call, working.fault), 0;
            target->number = (long long)cordon_number(&working);
            if (counted)
                target->after = CreateString(NULL, (const char *)working.bytes, working.length);
            else
                target->number = -target->number;
        }
        at += 1 + layout->target;
    }
    return 1;
}

static int arrive(const call_t *call)
{
    Context *context = call->context;
    size_t length, claim_length;
    if (call->argument_count != 2 || call->key_count < 1)
        return WrongArity(context);
    const uint8_t *argument = bytes_of(call->arguments[0], &length);
    const uint8_t *claim = bytes_of(call->arguments[1], &claim_length);
    if (length < ARRIVAL || claim_length < CLAIM)
        return misused(call, "ERR an arrival is cut off");
    uint64_t now_ms = number_at(argument, 8), takeover_ms = number_at(argument + 16, 4);
    long long life_ms = 1000 * (long long)number_at(argument + 20, 4), clock_ms = Milliseconds();
    int observes = argument[24] == 1;
    unsigned count = argument[25];
    if ((uint64_t)clock_ms > number_at(argument + 8, 8))
        return reply_status(context, EXPIRED, NULL);
    if (call->key_count != 1 + (long long)count)
        return misused(call, "ERR as many keys as targets, and the claim's");

    value_t held;
    target_t targets[TARGETS_MAX];
    int status = 0;
    memset(targets, 0, count * sizeof *targets);
    if (!look_up(context, call->keys[0], READING | WRITING, &held))
        goto done;
    if (held.bytes != NULL && held.length < CLAIM) {
        misused(call, "ERR damaged claim");
        goto done;
    }
    status = judged(&held, claim, now_ms, takeover_ms);
    if (status != NEW && status != RECOVERED) {
        reply_status(context, status, &held);
        goto done;
    }
    if (!observe_all(call, argument + ARRIVAL, argument + length, observes, count, targets))
        goto done;

    ReplyWithArray(context, 1 + 2 * (long)count);
    ReplyWithLongLong(context, status);
    String *written[2 * TARGETS_MAX];
    size_t words = 0;
    for (unsigned i = 0; i < count; i++) {
        ReplyWithLongLong(context, targets[i].number);
        reply_value(context, &targets[i].before);
    }
    set(call, held.key, call->arguments[1], clock_ms + life_ms);
    for (unsigned i = 0; i < count; i++) {
        if (targets[i].after == NULL)
            continue;
        StringSet(targets[targets[i].same].before.key, targets[i].after);
        written[words++] = call->keys[1 + i];
        written[words++] = targets[i].after;
    }
    if (words)
        Replicate(context, "MSET", "v", written, words);
done:
    for (unsigned i = 0; i < count; i++) {
        if (targets[i].after != NULL)
            FreeString(NULL, targets[i].after);
        if (targets[i].before.key != NULL)
            CloseKey(targets[i].before.key);
    }
    if (held.key != NULL)
        CloseKey(held.key);
    return OK;
}

/* Writes what `working` holds, if it differs; replies an error if it is not to be kept. Returns whether it is. */
static int keep(const call_t *call, const value_t *before)
{
    if (working.fault)
        return misused(call, working.fault), 0;
    if (before->bytes != NULL && before->length == working.length
        && memcmp(before->bytes, working.bytes, working.length) == 0)
        return 1;
    String *after = CreateString(NULL, (const char *)working.bytes, working.length);
    set(call, before->key, after, -1);
    FreeString(NULL, after);
    return 1;
}

static int observe_one(const call_t *call)
{
    Context *context = call->context;
    size_t length;
    if (call->argument_count != 1 || call->key_count != 1)
        return WrongArity(context);
    const uint8_t *argument = bytes_of(call->arguments[0], &length);
    if (length < ALONE || argument[9] < 1 || argument[9] > call->library->entities)
        return misused(call, "ERR no target of this catalogue");
    const layout_t *layout = &call->library->layouts[argument[9] - 1];
    if (length < ALONE + layout->target)
        return misused(call, "ERR a target is cut off");
    if ((uint64_t)Milliseconds() > number_at(argument, 8))
        return ReplyWithNull(context);
    value_t before;
    if (look_up(context, call->keys[0], READING | WRITING, &before)) {
        long long number = 0;
        if (argument[8]) {
            cordon_open(&working, layout, before.bytes, before.length);
            int counted = cordon_observe(&working, argument + ALONE);
            number = (long long)cordon_number(&working);
            number = counted ? number : -number;
        }
        if (argument[8] && working.fault) {
            misused(call, working.fault);
        } else {
            ReplyWithArray(context, 2);
            ReplyWithLongLong(context, number);
            reply_value(context, &before);
            if (number > 0)
                keep(call, &before);
        }
    }
    CloseKey(before.key);
    return OK;
}

static int merge_one(const call_t *call)
{
    size_t length;
    if (call->argument_count != 1 || call->key_count != 1)
        return WrongArity(call->context);
    const uint8_t *rows = bytes_of(call->arguments[0], &length);
    value_t before;
    if (look_up(call->context, call->keys[0], READING | WRITING, &before)) {
        uint64_t count = 0;
        cordon_open(&working, &call->library->layouts[call->entity - 1], before.bytes, before.length);
        cordon_merge(&working, rows, length, &count);
        if (keep(call, &before))
            ReplyWithLongLong(call->context, (long long)count);
    }
    CloseKey(before.key);
    return OK;
}

/* A claim that was packed without knowing the held one takes its content and time. */
static int complete(const call_t *call)
{
    Context *context = call->context;
    size_t length;
    long long life_s;
    if (call->argument_count != 2 || call->key_count != 1)
        return WrongArity(context);
    const uint8_t *claim = bytes_of(call->arguments[1], &length);
    if (StringToLongLong(call->arguments[0], &life_s) != OK || life_s < 1 || length < CLAIM)
        return misused(call, "ERR no answered claim");
    long long expires_ms = Milliseconds() + 1000 * life_s;
    value_t held;
    if (look_up(context, call->keys[0], READING | WRITING, &held)) {
        int known = held.bytes != NULL && held.length >= CLAIM;
        if (known && memcmp(held.bytes + 1, claim + 1, ORIGIN) == 0) {
            set(call, held.key, call->arguments[1], expires_ms);
            ReplyWithLongLong(context, 1);
        } else if (known && memcmp(held.bytes + 1 + CONTENT, claim + 1 + CONTENT, OWNER) == 0) {
            uint8_t head[CLAIM] = {ANSWERED};
            memcpy(head + 1, held.bytes + 1, ORIGIN);
            set_claim(call, held.key, head, claim + CLAIM, length - CLAIM, expires_ms);
            ReplyWithLongLong(context, 1);
        } else {
            ReplyWithLongLong(context, 0);
        }
    }
    CloseKey(held.key);
    return OK;
}

/* ---- commands ------------------------------------------------------------------------------------------ */

static int fcall(Context *context, String **argv, int argc)
{
    call_t call = {.context = context};
    if (argc < 3)
        return WrongArity(context);
    if (StringToLongLong(argv[2], &call.key_count) != OK || call.key_count < 0 || call.key_count > argc - 3) {
        if (IsKeysPositionRequest(context))
            return OK;
        return ReplyWithError(context, "ERR Number of keys can't be greater than number of args");
    }
    if (IsKeysPositionRequest(context)) {
        for (int i = 0; i < (int)call.key_count; i++)
            KeyAtPos(context, 3 + i);
        return OK;
    }
    function_t *function = find(argv[1], &call.library, &call.entity);
    if (function == NULL)
        return ReplyWithError(context, "ERR Function not found");
    call.keys = argv + 3;
    call.arguments = call.keys + call.key_count;
    call.argument_count = argc - 3 - (int)call.key_count;
    return function(&call);
}

static int learn(Context *context, String **argv, int argc)
{
    size_t name_length, length;
    if (argc != 3)
        return WrongArity(context);
    const char *name = StringPtrLen(argv[1], &name_length);
    const uint8_t *packed = bytes_of(argv[2], &length);
    size_t revision = sizeof REVISION - 1;
    if (name_length < revision || memcmp(name + name_length - revision, REVISION, revision) != 0)
        return ReplyWithError(context, "ERR another revision of the functions: load the module of that version");
    unsigned i = 0;
    while (i < library_count
           && (libraries[i].length != name_length || memcmp(libraries[i].name, name, name_length) != 0))
        i++;
    if (i == LIBRARIES_MAX)
        return ReplyWithError(context, "ERR too many libraries: start the server anew");
    library_t learnt = {.length = name_length};
    learnt.entities = cordon_layouts(packed, length, &learnt.layouts);
    if (learnt.entities == 0)
        return ReplyWithError(context, "ERR no layouts");
    if (i < library_count) {
        free(libraries[i].layouts);
        learnt.name = libraries[i].name;
    } else {
        learnt.name = malloc(name_length + 1);
        if (learnt.name == NULL)
            abort();
        memcpy(learnt.name, name, name_length);
        library_count++;
    }
    libraries[i] = learnt;
    return ReplyWithSimpleString(context, "OK");
}

/* Calls of functions that are known here go here. */
static void route(Filtered *filtered)
{
    static const char NAME[] = "FCALL";
    const library_t *library;
    unsigned entity;
    size_t length;
    if (CommandFilterArgsCount(filtered) < 3)
        return;
    const char *name = StringPtrLen(CommandFilterArgGet(filtered, 0), &length);
    if (length != sizeof NAME - 1 || memcmp(name, NAME, length) != 0)
        return;
    if (find(CommandFilterArgGet(filtered, 1), &library, &entity) == NULL)
        return;
    RetainString(NULL, own_call);
    CommandFilterArgReplace(filtered, 0, own_call);
}

int RedisModule_OnLoad(Context *context, String **argv, int argc)
{
    (void)argv;
    (void)argc;
    if (!connect_to_server(context))
        return FAILED;
    SetModuleAttribs(context, "cordon", VERSION, API_VERSION);
    if (CreateCommand(context, "cordon.layout", learn, "fast", 0, 0, 0) != OK
        || CreateCommand(context, "cordon.fcall", fcall, "write deny-oom getkeys-api", 0, 0, 0) != OK
        || RegisterCommandFilter(context, route, 0) == NULL)
        return FAILED;
    own_call = CreateString(NULL, "CORDON.FCALL", 12);
    return OK;
}

int RedisModule_OnUnload(Context *context)
{
    (void)context;
    while (library_count) {
        library_count--;
        free(libraries[library_count].name);
        free(libraries[library_count].layouts);
    }
    free(working.bytes);
    working = (state_t){0};
    FreeString(NULL, own_call);
    return OK;
}
