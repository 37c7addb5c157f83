<?php // A script of its own, which does not look at the path after its name.
echo 'GOODS-buy.php';
