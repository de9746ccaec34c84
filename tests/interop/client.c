// paho C as a device, or as a display. The order of steps, and what is printed, is in tests/system/clients.rs.
//
//     client device HOST PORT CA CERT KEY ID VERSION DIR     VERSION: 4 (v3.1.1) or 5; DIR holds the messages 0, 1, 2
//     client listen HOST PORT CA CERT KEY ID VERSION TOPIC
//
// cc -Wall -Wextra client.c -o client -lpaho-mqtt3cs

#include <MQTTClient.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATIENCE_MS = 20000, REFUSED = 0x80 };

static int v5;
static MQTTClient client;
static volatile int refusals;
static MQTTClient_SSLOptions tls = MQTTClient_SSLOptions_initializer;

static void fail(const char *what, int code) {
    fprintf(stderr, "client: %s: %d\n", what, code);
    exit(1);
}

static const char *word(int yes) {
    return yes ? "true" : "false";
}

// v5: what the last acknowledgement says.
static void on_published(void *context, int token, int packet, MQTTProperties *properties, enum MQTTReasonCodes code) {
    (void)context, (void)token, (void)packet, (void)properties;
    refusals += (int)code >= REFUSED;
}

// Says whether there was a session; in v5 this library does not tell, and it is 0.
static int connected(void) {
    MQTTClient_connectOptions plain = MQTTClient_connectOptions_initializer;
    MQTTClient_connectOptions five = MQTTClient_connectOptions_initializer5;
    MQTTClient_connectOptions options = v5 ? five : plain;
    options.keepAliveInterval = 30;
    options.connectTimeout = PATIENCE_MS / 1000;
    options.ssl = &tls;
    if (v5) {
        options.cleanstart = 0;
        MQTTProperties properties = MQTTProperties_initializer;
        MQTTProperty expiry = {.identifier = MQTTPROPERTY_CODE_SESSION_EXPIRY_INTERVAL, .value.integer4 = 300};
        MQTTProperties_add(&properties, &expiry);
        MQTTResponse answer = MQTTClient_connect5(client, &options, &properties, NULL);
        if (answer.reasonCode != 0) fail("connect", answer.reasonCode);
        MQTTProperties_free(&properties);
        MQTTResponse_free(answer);
        return 0;
    }
    options.cleansession = 0;
    options.MQTTVersion = MQTTVERSION_3_1_1;
    int code = MQTTClient_connect(client, &options);
    if (code != 0) fail("connect", code);
    return options.returned.sessionPresent;
}

static void disconnect(void) {
    int code = v5 ? MQTTClient_disconnect5(client, 1000, MQTTREASONCODE_SUCCESS, NULL) : MQTTClient_disconnect(client, 1000);
    if (code != 0) fail("disconnect", code);
}

// Says whether it was granted.
static int granted(const char *topic) {
    if (!v5) return MQTTClient_subscribe(client, topic, 1) == 0;
    MQTTResponse answer = MQTTClient_subscribe5(client, topic, 1, NULL, NULL);
    int code = answer.reasonCode;
    MQTTResponse_free(answer);
    return code >= 0 && code < REFUSED;
}

// Publishes, waits for the last acknowledgement, and says whether it was taken.
static int published(const char *topic, void *payload, int length, int qos) {
    MQTTClient_deliveryToken token;
    if (!v5) {
        int code = MQTTClient_publish(client, topic, length, payload, qos, 0, &token);
        return code == 0 && MQTTClient_waitForCompletion(client, token, PATIENCE_MS) == 0;
    }
    MQTTResponse answer = MQTTClient_publish5(client, topic, length, payload, qos, 0, NULL, &token);
    int code = answer.reasonCode;
    MQTTResponse_free(answer);
    return code >= 0 && code < REFUSED && MQTTClient_waitForCompletion(client, token, PATIENCE_MS) == 0 &&
           refusals == 0;
}

// The next message, printed as a JSON string or as it is.
static int receive(int quoted) {
    MQTTClient_message *message = NULL;
    char *topic = NULL;
    int length, code = MQTTClient_receive(client, &topic, &length, &message, PATIENCE_MS);
    if (code != 0 || message == NULL) fail("receive", code);
    for (int at = 0; at < message->payloadlen; at++) {
        char byte = ((char *)message->payload)[at];
        if (quoted && byte == '\n') printf("\\n");
        else putchar(byte);
    }
    int retained = message->retained;
    MQTTClient_freeMessage(&message);
    MQTTClient_free(topic);
    return retained;
}

static void device(const char *id, const char *messages) {
    char own[128], down[128], name[4096];
    snprintf(own, sizeof own, "v1/d/%s/vitals", id);
    snprintf(down, sizeof down, "v1/d/%s/down", id);
    int present = connected();
    const char *filters[] = {down, "v1/d/other/down", "v1/#", "v1/recipient"};
    int answers[4];
    for (int at = 0; at < 4; at++) answers[at] = granted(filters[at]);
    printf("{\"recipient\":\"");
    int retained = receive(1);
    printf("\",\"retained\":%s,\"granted\":[", word(retained));
    for (int at = 0; at < 4; at++) printf("%s%s", at ? "," : "", word(answers[at]));
    static char payload[512 * 1024];
    for (int qos = 0; qos < 3; qos++) {
        snprintf(name, sizeof name, "%s/%d", messages, qos);
        FILE *file = fopen(name, "rb");
        if (file == NULL) fail(name, 0);
        int length = (int)fread(payload, 1, sizeof payload, file);
        fclose(file);
        if (!published(own, payload, length, qos)) fail("publish", qos);
    }
    disconnect();
    int present_again = connected();
    if (v5) printf("],\"present\":null");
    else printf("],\"present\":[%s,%s]", word(present), word(present_again));
    // v5 answers with a reason, v3.1.1 with the end of the connection.
    int refused = !published("v1/d/other/vitals", "x", 1, 1);
    printf(",\"refused\":%s}\n", word(refused));
}

int main(int count, char **args) {
    if (count != 10) fail("wrong use", count);
    const char *what = args[1], *id = args[7], *last = args[9];
    char url[256];
    snprintf(url, sizeof url, "ssl://%s:%s", args[2], args[3]);
    v5 = strcmp(args[8], "5") == 0;
    tls.trustStore = args[4];
    tls.keyStore = args[5];
    tls.privateKey = args[6];
    tls.verify = 1;
    tls.enableServerCertAuth = 1;
    MQTTClient_createOptions options = MQTTClient_createOptions_initializer;
    options.MQTTVersion = v5 ? MQTTVERSION_5 : MQTTVERSION_3_1_1;
    int code = MQTTClient_createWithOptions(&client, url, id, MQTTCLIENT_PERSISTENCE_NONE, NULL, &options);
    if (code != 0) fail("create", code);
    if (v5) MQTTClient_setPublished(client, NULL, on_published);
    if (strcmp(what, "device") == 0) {
        device(id, last);
        return 0;
    }
    connected();
    if (!granted(last)) fail("subscribe", 0);
    printf("listening\n");
    fflush(stdout);
    receive(0);
    putchar('\n');
    disconnect();
    return 0;
}
