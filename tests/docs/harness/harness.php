<?php

require __DIR__ . '/snippet.php';

foreach (file('php://stdin', FILE_IGNORE_NEW_LINES) as $line) {
    [$secret, $webhookId, $timestamp, $signatures, $body] = explode("\t", $line);
    $genuine = is_genuine($secret, $webhookId, $timestamp, $signatures, base64_decode($body));
    echo $genuine ? "yes\n" : "no\n";
}
